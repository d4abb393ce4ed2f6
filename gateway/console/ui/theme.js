// Runs before anything is drawn: what was chosen holds from the first moment.
"use strict";
(function () {
  const root = document.documentElement;
  const key = "crossfade-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  root.classList.add("scripts");
  let chosen = null;
  try {
    chosen = localStorage.getItem(key);
  } catch {
    // A browser that keeps nothing: it is asked each time.
  }
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  const shown = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => {
      const other = shown() === "dark" ? "light" : "dark";
      button.textContent = other === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", "Use " + other + " colours");
    };
    button.addEventListener("click", () => {
      root.dataset.theme = shown() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(key, root.dataset.theme);
      } catch {
        // It holds until the page is left.
      }
      say();
    });
    dark.addEventListener("change", say);
    say();
  });
})();
