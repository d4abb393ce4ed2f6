// Renews the part of the page that changes, in place: what has the focus, what is
// selected or open, and where the page is scrolled to stay as they are.
"use strict";
(function () {
  const every = 5000; // milliseconds
  const patience = 10000;
  const old = 15; // seconds
  const page = document.getElementById("live");
  const announce = document.getElementById("announce");
  const pause = document.getElementById("pause");
  let renewed = Date.now();
  let trouble = "";
  let paused = false;
  let timer = 0;
  let busy = false;

  function say(text) {
    announce.textContent = text;
  }

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");

  function alike(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  }

  // change makes an element what another one is.
  function change(is, will) {
    const keeps = (name) => name === "open" && is.nodeName === "DETAILS"; // that is the reader's
    for (const { name } of [...is.attributes]) {
      if (!will.hasAttribute(name) && !keeps(name)) is.removeAttribute(name);
    }
    for (const { name, value } of will.attributes) {
      if (!keeps(name) && is.getAttribute(name) !== value) is.setAttribute(name, value);
    }
    const keyed = new Map();
    for (const child of is.childNodes) {
      if (keyOf(child)) keyed.set(keyOf(child), child);
    }
    let at = is.firstChild;
    for (const next of [...will.childNodes]) {
      const key = keyOf(next);
      let found = key ? keyed.get(key) : at;
      if (!found || !alike(found, next)) found = null;
      if (!found) {
        is.insertBefore(document.importNode(next, true), at);
        continue;
      }
      keyed.delete(key);
      if (found === at) at = at.nextSibling;
      else is.insertBefore(found, at);
      if (found.nodeType === Node.ELEMENT_NODE) change(found, next);
      else if (found.nodeValue !== next.nodeValue) found.nodeValue = next.nodeValue;
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  function show(text) {
    const next = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    if (!next) throw new Error("this is no part of a page");
    const was = page.dataset.announce;
    const focused = document.activeElement;
    change(page, next);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (trouble) say("The gateway answers again. " + page.dataset.announce);
    else if (page.dataset.announce !== was) say(page.dataset.announce);
    renewed = Date.now();
    trouble = "";
  }

  async function renew() {
    if (busy) return;
    busy = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: { Accept: "text/html", "Crossfade-Fragment": "live" },
        cache: "no-store",
        signal: AbortSignal.timeout(patience),
      });
      if (!answer.ok) throw new Error("the answer is " + answer.status);
      if (answer.headers.get("Crossfade-Fragment") !== "live") throw new Error("something else answers");
      show(await answer.text());
    } catch (error) {
      if (!trouble) say("The gateway does not answer.");
      trouble = error instanceof TypeError || error.name === "TimeoutError" ? "no answer" : error.message;
    } finally {
      busy = false;
    }
    tell();
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(renew, every);
  }

  function duration(seconds) {
    if (seconds < 60) return seconds + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    return Math.floor(seconds / 3600) + " h";
  }

  // tell says how old it is what the page shows.
  function tell() {
    const pulse = document.getElementById("pulse");
    const age = Number(page.dataset.age) + Math.floor((Date.now() - renewed) / 1000);
    const ago = duration(age) + " ago";
    let text = "live, " + ago;
    if (paused) text = "paused, " + ago;
    if (trouble) text = trouble + ": this is from " + ago;
    else if (page.dataset.trouble) text = "store away: this is from " + ago;
    const bad = trouble !== "" || Boolean(page.dataset.trouble) || (!paused && age > old);
    if (pulse.textContent !== text) pulse.textContent = text;
    pulse.classList.toggle("bad", bad);
    pulse.classList.toggle("paused", paused && !bad);
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) clearTimeout(timer);
    else renew();
    tell();
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent + "\n");
      say("Copied.");
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      say("It is selected: copy it with the keyboard.");
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !paused) renew();
  });

  tell();
  setInterval(tell, 1000);
  plan();
})();
