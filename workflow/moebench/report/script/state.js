// The reader's choices, kept in the fragment of the URL: #explore?y=e2e_s&log=1. Defaults are left out.

const STATE = new Map();
const listeners = [];

function readAddress() {
  const [anchor, query] = location.hash.slice(1).split("?");
  STATE.clear();
  for (const [key, given] of new URLSearchParams(query || "")) STATE.set(key, given);
  return decodeURIComponent(anchor);
}

/** Link to this page with other choices. */
function address(anchor, changes = {}) {
  const all = new Map(STATE);
  for (const [key, given] of Object.entries(changes)) given ? all.set(key, given) : all.delete(key);
  const query = new URLSearchParams([...all].sort(([a], [b]) => (a < b ? -1 : 1))).toString();
  return `#${encodeURIComponent(anchor)}${query ? `?${query}` : ""}`;
}

/** Write choices (null: the default) to the URL without adding a history entry. */
function choose(changes, anchor = readAnchor()) {
  const to = address(anchor, changes);
  for (const [key, given] of Object.entries(changes)) given ? STATE.set(key, given) : STATE.delete(key);
  history.replaceState(null, "", to);
}

const readAnchor = () => decodeURIComponent(location.hash.slice(1).split("?")[0]);
const onAddress = listener => listeners.push(listener);

/** Go to the URL's anchor, expand everything around it, and let every part read its choices. */
function follow() {
  const anchor = readAddress();
  for (const listener of listeners) listener(anchor);
  const target = anchor && reveal(anchor);
  if (target) target.scrollIntoView();
}

addEventListener("hashchange", follow);

document.addEventListener("click", event => {
  const link = event.target.closest('a[href^="#"]');
  if (!link || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const href = link.getAttribute("href");
  const to = href.includes("?") ? href : address(decodeURIComponent(href.slice(1)));
  if (to === location.hash) follow();
  else location.hash = to;
});
