// Light or dark, before anything is painted: what was chosen here, else what the system says. Not a module: those wait.
(() => {
  const KEY = "ladder.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function chosen() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // A browser may forbid to keep anything.
    }
  }

  function keep(theme) {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch {
      // Then it holds as long as the page.
    }
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function show() {
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  }

  if (["light", "dark"].includes(chosen())) root.dataset.theme = chosen();
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      // A choice that is the same as the system follows the system from then on.
      const own = (theme === "dark") === system.matches ? null : theme;
      if (own) root.dataset.theme = own;
      else delete root.dataset.theme;
      keep(own);
      show();
    });
  });
})();
