"use strict";

const byId = (id) => document.getElementById(id);
const kinds = [...document.querySelectorAll("details.kind")];

// --- tools that need this script are shown by it ---------------------------------------------
document.documentElement.classList.add("scripted");

// --- search and filter ---------------------------------------------------------------------------
const search = byId("search");
const filter = byId("filter");

function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const kind of kinds) {
    const is = kind.dataset.is.split(" ").includes(filter.value);
    const shown = is && words.every((word) => kind.dataset.search.includes(word));
    kind.hidden = !shown;
    found += shown ? 1 : 0;
  }
  byId("found").textContent = `${found} of ${kinds.length} kinds`;
  byId("nothing").hidden = found > 0;
}

search.addEventListener("input", show);
filter.addEventListener("change", show);
show(); // browsers keep what was typed when a page is loaded again

// --- folding ---------------------------------------------------------------------------------------
function fold(open) {
  for (const kind of kinds) {
    if (!kind.hidden) kind.open = open;
  }
}

byId("open-all").addEventListener("click", () => fold(true));
byId("close-all").addEventListener("click", () => fold(false));

// --- a link to a kind unfolds it ---------------------------------------------------------------
function follow() {
  const kind = kinds.find((each) => `#${each.id}` === location.hash);
  if (!kind) return;
  if (kind.hidden) {
    search.value = "";
    filter.value = "all";
    show();
  }
  kind.open = true;
  kind.scrollIntoView();
  kind.querySelector("summary").focus({ preventScroll: true });
}

window.addEventListener("hashchange", follow);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#kind-']");
  if (link && link.hash === location.hash) follow(); // else the address changes
});
follow();

// --- the ribbon: one stop for the tab key, arrows inside; equal pieces stand out ----------------
for (const ribbon of document.querySelectorAll(".ribbon")) {
  const tiles = [...ribbon.querySelectorAll("a")];
  tiles.forEach((tile, number) => (tile.tabIndex = number ? -1 : 0));

  ribbon.addEventListener("keydown", (event) => {
    const at = tiles.indexOf(document.activeElement);
    const last = tiles.length - 1;
    const to = {
      ArrowRight: Math.min(at + 1, last),
      ArrowLeft: Math.max(at - 1, 0),
      ArrowDown: below(tiles, at, 1),
      ArrowUp: below(tiles, at, -1),
      Home: 0,
      End: last,
    }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    tiles[at].tabIndex = -1;
    tiles[to].tabIndex = 0;
    tiles[to].focus();
  });

  const mark = (event) => {
    const kind = event.target.closest?.("a")?.dataset.kind;
    for (const tile of tiles) tile.classList.toggle("dim", Boolean(kind) && tile.dataset.kind !== kind);
  };
  ribbon.addEventListener("mouseover", mark);
  ribbon.addEventListener("focusin", mark);
  const unmark = () => tiles.forEach((tile) => tile.classList.remove("dim"));
  ribbon.addEventListener("mouseleave", unmark);
  ribbon.addEventListener("focusout", unmark);
}

/** The tile a row further down or up, the nearest by its left edge; the same one at the ends. */
function below(tiles, at, step) {
  if (at < 0) return at;
  const { offsetTop, offsetLeft } = tiles[at];
  for (let to = at + step; to >= 0 && to < tiles.length; to += step) {
    const next = tiles[to + step];
    if (tiles[to].offsetTop === offsetTop) continue;
    const passed = step > 0 ? tiles[to].offsetLeft >= offsetLeft : tiles[to].offsetLeft <= offsetLeft;
    if (passed || !next || next.offsetTop !== tiles[to].offsetTop) return to;
  }
  return at;
}
