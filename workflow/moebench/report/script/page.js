// The table of contents: search, theme; then everything starts.

const themeListeners = [];
const onTheme = listener => themeListeners.push(listener);
const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  const now = name || (dark.matches ? "dark" : "light"), button = document.getElementById("theme");
  button.textContent = now === "dark" ? "Light" : "Dark";
  button.setAttribute("aria-label", `Show the page ${now === "dark" ? "light" : "dark"}`);
  themeListeners.forEach(listener => listener());
}

function buildNavigation() {
  const nav = document.getElementById("contents"), box = document.getElementById("search"), found = document.getElementById("found");
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    choose({ theme: next });
    setTheme(next);
  });
  dark.addEventListener("change", () => setTheme(STATE.get("theme")));
  const entries = [...nav.querySelectorAll("li")];
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean), has = text => words.every(word => text.toLowerCase().includes(word));
    entries.forEach(li => { li.hidden = words.length > 0 && !has(li.textContent); });
    const hits = words.length ? DATA.index.filter(([text, anchor]) => has(`${text} ${anchor}`)).slice(0, 12) : [];
    const cells = words.length ? TEXTS.filter(text => words.every(word => text.includes(word))).length : 0;
    found.replaceChildren(...hits.map(([text, anchor]) => el("li", {}, el("a", { href: `#${anchor}`, text }))),
      ...(cells ? [el("li", {}, el("a", { href: address("cells", { find: box.value, of: null, state: null }), text: `${cells} cell${cells > 1 ? "s" : ""} in the table` }))] : []));
    document.getElementById("found-count").textContent = words.length ? `${hits.length + entries.filter(li => !li.hidden).length} entries, ${cells} cells` : "";
  });
  box.addEventListener("keydown", event => { if (event.key === "Enter") (found.querySelector("a") || nav.querySelector("li:not([hidden]) a"))?.click(); });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || document.activeElement.matches("input, select, textarea") || document.getElementById("record").open) return;
    event.preventDefault();
    nav.open = true;
    box.focus();
  });
  document.getElementById("unfold").addEventListener("click", event => {
    const open = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", String(open));
    event.target.textContent = open ? "Collapse all" : "Expand all";
    foldAll(open);
  });
  const narrow = matchMedia("(max-width: 64rem)"), fit = () => { nav.open = !narrow.matches; };
  narrow.addEventListener("change", fit);
  fit();
  nav.addEventListener("click", event => { if (narrow.matches && event.target.closest("a")) nav.open = false; });
  // The reader's position: the entry of the section nearest to the top of the window.
  const links = new Map([...nav.querySelectorAll('a[href^="#"]')].map(a => [a.getAttribute("href").slice(1), a]));
  const watcher = new IntersectionObserver(seen => {
    for (const entry of seen.filter(e => e.isIntersecting)) {
      links.forEach(link => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  document.querySelectorAll("main > section[id], main details.experiment[id]").forEach(section => watcher.observe(section));
}

/** A drawn figure as a separate file: the SVG in the page with the styles that it uses. */
function standalone(svg) {
  const copy = svg.cloneNode(true), used = rule => svg.querySelector(rule.selectorText);
  const rules = [...document.getElementById("drawn").sheet.cssRules].filter(used).map(rule => rule.cssText);
  const style = document.createElementNS(svg.namespaceURI, "style");
  style.textContent = rules.join("\n");
  copy.prepend(style);
  return new XMLSerializer().serializeToString(copy);
}

document.addEventListener("click", event => {
  const button = event.target.closest("button.save-svg");
  if (!button) return;
  const figure = button.closest("figure"), blob = new Blob([standalone(figure.querySelector("svg"))], { type: "image/svg+xml" });
  const link = el("a", { href: URL.createObjectURL(blob), download: `${figure.id}.svg` });
  document.body.append(link);
  link.click();
  link.remove();
});

document.documentElement.classList.add("live");
document.querySelectorAll("figure svg").forEach(enhance);
buildNavigation();
if (COUNT && DATA.metrics.length) buildExplore();
onAddress(() => setTheme(STATE.get("theme")));
follow();
