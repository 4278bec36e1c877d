// Collapsed parts are text inside <noscript> until they are expanded, which keeps a page of 68 figures light.

/** Turn the text inside a part into elements; without a script, the browser shows it directly. */
function unpack(part) {
  for (const waiting of part.querySelectorAll("noscript.later")) {
    const box = document.createElement("div");
    box.innerHTML = waiting.textContent;
    const made = [...box.children];
    waiting.replaceWith(...box.childNodes);
    for (const element of made) element.querySelectorAll("figure svg").forEach(enhance);
  }
}

/** The element with an id, after expanding everything around it; null if there is none. */
function reveal(id) {
  let target = document.getElementById(id);
  while (!target) {
    const waiting = [...document.querySelectorAll("noscript.later")].find(n => n.textContent.includes(`id="${id}"`));
    if (!waiting) return null;
    unpack(waiting.parentElement);
    target = document.getElementById(id);
  }
  for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) {
    unpack(part);
    part.open = true;
  }
  return target;
}

document.addEventListener("toggle", event => { if (event.target.open) unpack(event.target); }, true);

/** Expand or collapse all. */
function foldAll(open) {
  for (const part of document.querySelectorAll("main details")) {
    if (open) unpack(part);
    part.open = open;
  }
}

// Nothing can be expanded on paper, so printing expands figures and their sections.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("main details.experiment:not([open])")];
  for (const part of folded) { unpack(part); part.open = true; }
});
addEventListener("afterprint", () => folded.forEach(part => { part.open = false; }));
