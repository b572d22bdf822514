from .wire import *
def test_x(service):
    service.created("bob",id="bob")
    for t in ("/users","/users/bob","/leaderboard","/health","/users/bob/rating","/nope"):
        r=service.raw(request("OPTIONS",t)); print(t,r.status,r.headers.get("allow"),r.headers.get("x-request-id"),r.body[:80])
        r=service.raw(request("TRACE",t)); print(t,r.status,r.headers.get("allow"))
    ws=[("Upgrade","websocket"),("Connection","Upgrade"),("Sec-WebSocket-Version","13"),("Sec-WebSocket-Key","dGhlIHNhbXBsZSBub25jZQ==")]
    for t in ("/users/bob","/health/live","/nope","/leaderboard?limit=0"):
        try: r=service.raw(request("GET",t,ws,last=False)); print("ws",t,r)
        except Exception as e: print("ws",t,repr(e))
    print(service.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    for n in (65536-200, 65536-60, 65536, 65600):
        print(n, service.raw(request("GET","/users/bob",[("X-A","a"*n)])).status, service.raw(request("GET","/users/bob?x="+"a"*n)).status)
    print(service.defects())
