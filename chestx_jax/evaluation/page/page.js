"use strict";
// The cases are data. They reach the page through textContent and attributes only, never as HTML.
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Colours: as the system has them, until someone chooses.
  const themes = { Auto: "", Light: "light", Dark: "dark" };
  const theme = byId("theme");
  const paint = (name) => {
    themes[name] ? (root.dataset.theme = themes[name]) : delete root.dataset.theme;
    theme.textContent = name;
    theme.setAttribute("aria-label", `Colours: ${name === "Auto" ? "as the system has them" : name}`);
  };
  const stored = (() => { try { return localStorage.getItem("chestx-theme"); } catch { return null; } })();
  if (stored in themes) paint(stored);
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    const next = names[(names.indexOf(theme.textContent) + 1) % names.length];
    paint(next);
    try { localStorage.setItem("chestx-theme", next); } catch { /* a page from a file may not store */ }
  });

  const list = byId("list");
  if (!list) return;
  const data = JSON.parse(byId("data").textContent);
  const cases = data.cases;
  const SIGNS = {
    supported: "✓", contradicted: "✗", unmentioned: "?", repeated: "=", "off topic": "~", planned: "…", empty: "–",
    recalled: "✓", "in part": "≈", missed: "○",
  };
  const MEANING = {
    supported: "by gold reasoning or report", contradicted: "by gold reasoning, report or the text itself",
    unmentioned: "gold reasoning and report are silent", repeated: "true, but said before", "off topic": "true, but not asked about",
    planned: "says what to look for", empty: "nothing that can be checked", recalled: "gold that was stated",
    "in part": "gold that was stated in part", missed: "gold that was not stated",
  };
  const styleOf = (name) => name.replace(" ", "-");
  const ROW = 58;
  const field = Object.fromEntries(
    ["search", "group", "scope", "outcome", "number", "low", "high", "sort"].map((id) => [id, byId(id)]));
  const browser = byId("browser"), detail = byId("detail"), tip = byId("tip"), viewer = byId("viewer");

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const brief = (text) => (text.length > 160 ? `${text.slice(0, 160)}…` : text);
  const option = (value, label = value) => make("option", { value }, label);
  const distinct = (values) => [...new Set(values)];

  // What can be chosen
  for (const group of distinct(cases.map((c) => c.group))) field.group.append(option(group));
  const titles = distinct(cases.flatMap((c) => c.texts.map((t) => t.title)));
  for (const title of titles) field.scope.append(option(title));
  byId("scope-label").hidden = titles.length < 2;
  if (titles.length > 1) field.outcome.append(option("disagree", "they differ"));
  for (const name of distinct(cases.flatMap((c) => c.texts.flatMap((t) => Object.keys(t.numbers))))) field.number.append(option(name));
  for (const id of ["number", "low", "high"]) field[id].closest("label").hidden = !field.number.options.length;

  // Which cases are shown
  let shown = [], chosen = -1;
  const words = new Map();
  const haystack = (c) => {
    if (!words.has(c)) {
      const texts = [...c.references, ...c.texts].flatMap((t) => [t.text, t.answer]);
      words.set(c, [c.id, c.question, c.answer, ...texts].join("\n").toLowerCase());
    }
    return words.get(c);
  };
  const scoped = (c) => (field.scope.value ? c.texts.filter((t) => t.title === field.scope.value) : c.texts);
  const score = (c) => {
    const values = scoped(c).map((t) => t.numbers[field.number.value]).filter((x) => x !== undefined);
    return values.length ? values.reduce((a, b) => a + b) / values.length : NaN;
  };
  const OUTCOMES = {
    right: (c) => scoped(c).some((t) => t.right === true),
    wrong: (c) => scoped(c).some((t) => t.right === false),
    none: (c) => scoped(c).some((t) => t.right !== null && !t.answer),
    disagree: (c) => distinct(c.texts.map((t) => t.right)).length > 1,
  };
  const bound = (input, otherwise) => (input.value === "" ? otherwise : Number(input.value));

  function filter() {
    const sought = field.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const low = bound(field.low, -Infinity), high = bound(field.high, Infinity);
    const ranged = field.low.value !== "" || field.high.value !== "";
    shown = cases.filter((c) =>
      (!field.group.value || c.group === field.group.value) &&
      (!field.scope.value || scoped(c).length) &&
      (!field.outcome.value || OUTCOMES[field.outcome.value](c)) &&
      (!ranged || (score(c) >= low && score(c) <= high)) &&
      sought.every((word) => haystack(c).includes(word)));
    if (field.sort.value === "id") shown.sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
    if (field.sort.value === "up" || field.sort.value === "down") {
      const sign = field.sort.value === "up" ? 1 : -1;
      const key = new Map(shown.map((c) => [c, score(c)]));
      shown.sort((a, b) => isNaN(key.get(a)) - isNaN(key.get(b)) || sign * (key.get(a) - key.get(b)) || 0);
    }
    byId("count").textContent = `${shown.length} of ${cases.length} cases`;
    sizer.style.height = `${shown.length * ROW}px`;
    choose(0);
  }

  // The list draws only the rows in sight
  const sizer = make("div", { role: "presentation" });
  list.append(sizer);
  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const rows = [];
    for (let i = first; i < last; i++) rows.push(row(i));
    sizer.replaceChildren(...rows);
    const active = chosen >= first && chosen < last ? `row-${chosen}` : null;
    active ? list.setAttribute("aria-activedescendant", active) : list.removeAttribute("aria-activedescendant");
  }
  function sign({ title, right }) {
    if (right === null) return "";
    return make("span", { class: right ? "right" : "wrong", title: `${title}: ${right ? "right" : "wrong"}` }, right ? "✓" : "✗");
  }
  function row(i) {
    const c = shown[i], value = score(c);
    const node = make("div", {
      class: "row", role: "option", id: `row-${i}`, "aria-selected": String(i === chosen),
      "aria-setsize": shown.length, "aria-posinset": i + 1, onclick: () => { choose(i); read(); },
    },
    make("div", {}, make("span", { class: "id" }, make("bdi", {}, c.id)), make("span", { class: "signs" }, ...c.texts.slice(0, 8).map(sign))),
    make("div", {}, make("span", { class: "of" }, `${c.group} · ${c.answer}`),
      make("span", { class: "score", title: field.number.value }, isNaN(value) ? "" : value.toFixed(2))));
    node.style.top = `${i * ROW}px`;
    return node;
  }
  function choose(i) {
    chosen = Math.min(i, shown.length - 1);
    const top = chosen * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    drawRows();
    drawCase();
  }
  function read() {
    browser.classList.add("reading");
    detail.focus({ preventScroll: true });
    if (!byId("back").offsetParent) return;
    browser.scrollIntoView({ block: "start" });
  }
  function leave() {
    browser.classList.remove("reading");
    list.focus({ preventScroll: true });
    drawRows();
  }

  // One case
  let drawn = null;
  function drawCase() {
    const c = shown[chosen];
    if (c === drawn) return;
    drawn = c;
    hideTip();
    detail.scrollTop = 0;
    if (!c) { detail.replaceChildren(make("p", { class: "nothing" }, "No case fits these filters.")); return; }
    const references = c.references.map((t) => textNode(t, "text reference"));
    const columns = [...(references.length ? [make("div", {}, ...references)] : []), ...c.texts.map((t) => textNode(t, "text", references))];
    const asked = make("div", { class: `ask${c.pictures.length ? " pictured" : ""}` },
      make("div", {}, make("p", { class: "question" }, c.question), make("p", { class: "gold" }, "Gold answer: ", make("b", {}, c.answer))), pictures(c));
    detail.replaceChildren(make("button", { type: "button", id: "back", onclick: leave }, "‹ all cases"),
      make("h3", {}, c.id), make("p", { class: "tag" }, `${c.group} · case ${chosen + 1} of ${shown.length}`),
      asked, ...legend(c), make("div", { class: "columns" }, ...columns));
    if (!root.dataset.ready) return; // the address names a case once someone has chosen it
    try { history.replaceState(null, "", `#case=${encodeURIComponent(c.id)}`); } catch { /* not everywhere allowed */ }
  }
  function legend(c) {
    const there = distinct([...c.texts, ...c.references].flatMap((t) => t.spans.map((s) => s[2]))).filter((v) => v >= 0).sort((a, b) => a - b);
    if (!there.length) return [];
    return [make("div", { class: "legend" }, ...there.map((v) => {
      const name = data.verdicts[v];
      return make("span", { class: styleOf(name) }, make("span", { class: "sign" }, SIGNS[name]), " ", make("span", { class: "words" }, name), ` ${MEANING[name]}`);
    }))];
  }
  function textNode(t, kind, references = []) {
    const node = make("section", { class: kind });
    node.append(make("h4", {}, t.title));
    if (t.right !== null || t.answer) {
      const mark = t.right === null ? "" : make("b", { class: t.right ? "right" : "wrong" }, t.right ? "✓ right: " : "✗ wrong: ");
      node.append(make("p", { class: "said" }, mark, brief(t.answer) || "no answer was read"));
    }
    const numbers = Object.entries(t.numbers).map(([name, x]) => [name, x.toFixed(2)]);
    const told = [...numbers, ...Object.entries(t.facts)];
    if (told.length) node.append(make("dl", {}, ...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
    if (!t.spans.length) {
      node.append(make("p", { class: "plain" }, t.text || "(empty)"));
      return node;
    }
    node.append(make("ol", { class: "steps" }, ...t.spans.map((span) => sentence(t, span, references))));
    if (kind === "text") node.append(make("details", {}, make("summary", {}, "As written"), make("p", { class: "plain" }, t.text)));
    return node;
  }
  function sentence(t, [start, end, verdict, evidence], references) {
    const name = data.verdicts[verdict] ?? "";
    const said = make("span", { class: "words" }, t.text.slice(start, end));
    if (name) {
      said.tabIndex = 0;
      said.setAttribute("role", "note");
      said.setAttribute("aria-label", `${name}: ${said.textContent}`);
      const show = () => { showTip(said, name, evidence, t); point(references, evidence); };
      const hide = () => { hideTip(); unmark(); };
      for (const type of ["mouseenter", "focus"]) said.addEventListener(type, show);
      for (const type of ["mouseleave", "blur"]) said.addEventListener(type, hide);
    }
    const shape = make("span", { class: "sign", "aria-hidden": "true" }, name ? SIGNS[name] : "·");
    return make("li", { class: styleOf(name) }, shape, said);
  }
  // Marks the words of a reference that the evidence rests on
  function unmark() {
    for (const mark of detail.querySelectorAll("mark")) { const parent = mark.parentNode; mark.replaceWith(mark.textContent); parent.normalize(); }
  }
  function point(references, evidence) {
    unmark();
    for (const [, number, start, end] of evidence) {
      const reference = drawn.references[number], node = references[number];
      if (!node) continue;
      const steps = node.querySelectorAll(".words");
      const pieces = steps.length ? reference.spans.map(([from, to], i) => [steps[i], from, to]) : [[node.querySelector(".plain"), 0, reference.text.length]];
      for (const [place, from, to] of pieces) {
        const a = Math.max(start, from), b = Math.min(end, to);
        if (a >= b || place.querySelector("mark")) continue;
        place.replaceChildren(reference.text.slice(from, a), make("mark", {}, reference.text.slice(a, b)), reference.text.slice(b, to));
      }
    }
  }
  function showTip(target, name, evidence, t) {
    tip.replaceChildren(make("b", {}, `${SIGNS[name]} ${name}`), `: ${MEANING[name]}`, ...evidence.map(([says, number, start, end]) => {
      const source = number === undefined ? null : number < 0 ? t.text : drawn.references[number].text;
      return make("p", {}, says, ...(source === null ? [] : [make("q", {}, source.slice(start, end))]));
    }));
    tip.hidden = false;
    const box = target.getClientRects()[0], high = tip.offsetHeight, wide = tip.offsetWidth;
    const last = target.getBoundingClientRect().bottom;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - wide - 8))}px`;
    tip.style.top = `${last + high + 12 < innerHeight ? last + 6 : Math.max(8, box.top - high - 6)}px`;
    target.setAttribute("aria-describedby", "tip");
  }
  function hideTip() {
    tip.hidden = true;
    for (const node of document.querySelectorAll("[aria-describedby='tip']")) node.removeAttribute("aria-describedby");
  }

  // Images
  let open = [], place = 0;
  function pictures(c) {
    if (!c.pictures.length) return "";
    const all = c.pictures.map((n, i) => ({ ...data.pictures[n], ...(c.captions[i] && { name: `${c.captions[i]} · ${data.pictures[n].name}` }) }));
    const visible = all.filter((p) => !p.missing);
    return make("ul", { class: "pictures" }, ...all.map((p, i) => make("li", {}, p.missing
      ? make("div", { class: "gone" }, `${p.name}: ${p.missing}`)
      : make("button", { type: "button", "aria-label": `Enlarge image ${i + 1} of ${all.length}`, onclick: () => enlarge(visible, visible.indexOf(p)) },
        make("img", { src: p.thumbnail || p.link, alt: `Image ${i + 1}: ${c.captions[i] || p.name}`, loading: "lazy" })),
      ...(c.captions[i] ? [make("p", {}, c.captions[i])] : []))));
  }
  function enlarge(among, i) {
    [open, place] = [among, i];
    const p = open[place], large = byId("large");
    large.onerror = p.thumbnail ? () => { large.onerror = null; large.src = p.thumbnail; } : null;
    large.src = p.link || p.thumbnail;
    large.alt = p.name;
    byId("caption").textContent = open.length > 1 ? `${p.name} · ${place + 1} of ${open.length} · ← →` : p.name;
    if (!viewer.open) viewer.showModal();
  }
  byId("close").addEventListener("click", () => viewer.close());
  byId("large").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) enlarge(open, (place + step + open.length) % open.length);
  });

  // Keys
  const MOVES = {
    j: 1, k: -1, ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity,
  };
  document.addEventListener("keydown", (event) => {
    if (viewer.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    const inList = event.target === list;
    if (event.key === "Escape") {
      if (!tip.hidden) { hideTip(); unmark(); if (detail.contains(event.target)) return; }
      if (typing) event.target.blur();
      leave();
    } else if (typing) {
      if (event.key === "Enter" && event.target === field.search) { event.preventDefault(); list.focus(); }
    } else if (event.key === "/") {
      event.preventDefault();
      field.search.focus();
      field.search.select();
    } else if (event.key === "Enter" && inList) {
      event.preventDefault();
      read();
    } else if (event.key in MOVES && (inList || event.key === "j" || event.key === "k") && shown.length) {
      event.preventDefault();
      choose(Math.max(0, Math.min(shown.length - 1, chosen + MOVES[event.key])));
    }
  });

  let waiting = 0;
  const filters = byId("filters");
  filters.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 100); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  list.addEventListener("scroll", drawRows, { passive: true });
  detail.addEventListener("scroll", hideTip, { passive: true });
  addEventListener("resize", drawRows);

  filter();
  const found = shown.findIndex((c) => location.hash === `#case=${encodeURIComponent(c.id)}`);
  if (found >= 0) { choose(found); read(); byId("cases").scrollIntoView(); }
  root.dataset.ready = "yes";
})();
