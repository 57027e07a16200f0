"use strict";

const MORE = 24, AT_ONCE = 4;  // pictures that a press of "More" adds, and that one request asks for
const FURTHEST = 4;  // along a direction, in deviations of the noise
const CORNERS = 4, MOST = {contents: 5, styles: 4};
const MAX_UPLOAD = 64 * 2 ** 20;  // bytes

const element = id => document.getElementById(id);
const list = selector => [...document.querySelectorAll(selector)];
const make = (kind, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
};

// A picture is known by its point, a word of the server: a seed, as in "12", or a projection, as in "p0".
let runs = [], run = 0;
let epoch = 0;  // changes with the run and its settings; answers to what was asked before are dropped
let tool = "directions";
let next = 0;  // the seed that "More" begins with
let own = [];  // projections, for each run: [{point, name, title, source}]
const sources = new Map();  // addresses of the pictures that are known, by point
let selected, amounts, corners, corner, place, lists, gates;

function begin() {
  const seeds = Array.from({length: 5}, (_, number) => String(+element("first").value + number));
  selected = seeds[0];
  amounts = Array(runs[run].directions).fill(0);
  corners = seeds.slice(0, CORNERS);
  corner = 0;
  place = {x: 0.5, y: 0.5};
  lists = {contents: seeds.slice(0, 3), styles: seeds.slice(3)};
  gates = new Set(runs[run].gates);
}

// Talking to the server.

async function ask(name, parameters = {}, options = {}) {
  let answer;
  try {
    answer = await fetch(`/api/${name}?${new URLSearchParams(parameters)}`, options);
  } catch {
    throw new Error("The server does not answer.\nStart codegan explore again.");
  }
  if (answer.ok) return answer;
  const {error, fix} = await answer.json();
  throw new Error(`${error}\n${fix}`);
}

function ofClass(parameters) {
  const name = element("class").value;
  return {run, ...(name && {class: name}), ...parameters};
}

function drawn(parameters) {
  const truncation = element("truncation").value;
  return ofClass({...(truncation !== "1" && {truncation}), ...parameters});
}

let isForgiven = false;  // when something is next drawn, what is being said

function say(text, isWrong = false) {
  element("message").textContent = text;
  element("message").classList.toggle("wrong", isWrong);
  isForgiven = false;
}

function complain(error) {
  say(error.message, true);
  isForgiven = true;
}

const forgive = () => { if (isForgiven) say(""); };

// A function that works on its newest call alone: while one is under way, only the last of those that follow waits.
function newest(work) {
  let waiting = null, busy = false;
  return async (...given) => {
    waiting = given;
    if (busy) return;
    busy = true;
    while (waiting) {
      const call = waiting;
      waiting = null;
      await work(...call).catch(complain);
    }
    busy = false;
  };
}

// The picture at the left.

let shown = "";  // its address, where it is to be given back

const show = newest(async (name, parameters, caption) => {
  const asked = `${epoch} ${tool}`;
  const bytes = await (await ask(name, drawn(parameters))).blob();
  if (asked !== `${epoch} ${tool}`) return;
  const before = shown;
  shown = URL.createObjectURL(bytes);
  present(shown, caption);
  URL.revokeObjectURL(before);
  forgive();
});

function present(source, caption) {
  const name = runs[run].name.split(/[\\/]/).filter(Boolean).pop() || "picture";
  const file = `${name}-${caption}.png`.toLowerCase().replace(/[^a-z0-9.-]+/g, "-");
  Object.assign(element("picture"), {src: source, alt: caption, hidden: false});
  Object.assign(element("download"), {href: source, download: file, hidden: false});
  element("caption").textContent = caption;
}

const isSeed = point => !point.startsWith("p");
const named = point => own[run].find(picture => picture.point === point)?.name ?? `Seed ${point}`;

// The tools: what each draws, and what it does with a picture that is chosen below.

const tools = {
  directions: {
    chosen: () => [selected],
    choose(point) { selected = point; },
    draw() {
      const isMoved = amounts.some(amount => amount !== 0);
      const parameters = {point: selected, ...(isMoved && {amounts: amounts.join()})};
      show("picture", parameters, named(selected) + (isMoved ? ", moved" : ""));
    },
  },
  walk: {
    chosen: () => corners,
    choose(point) {
      corners[corner] = point;
      corner = (corner + 1) % CORNERS;
    },
    draw() {
      layCorners();
      const areSeeds = corners.every(isSeed), names = corners.map(areSeeds ? String : named);
      const between = `Between ${areSeeds ? "seeds " : ""}${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
      show("walk", {corners: corners.join(), ...place}, between);
    },
  },
  mix: {
    chosen: () => [...lists.contents, ...lists.styles],
    choose(point) {
      const name = document.querySelector("input[name=list]:checked").value;
      const others = lists[name].filter(known => known !== point);
      if (others.length === lists[name].length) lists[name] = [...others, point].slice(-MOST[name]);
      else if (others.length) lists[name] = others;
    },
    draw() { drawMixes().catch(complain); },
  },
};

function choose(point) {
  forgive();
  try {
    tools[tool].choose(point);
  } catch (error) {
    return complain(error);
  }
  draw();
}

function draw() {
  tools[tool].draw();
  mark();
}

function mark() {
  const chosen = tools[tool].chosen();
  for (const tile of list("#grid .tile")) tile.setAttribute("aria-pressed", chosen.includes(tile.dataset.point));
}

const tabs = list("[role=tab]");

function open(name) {
  tool = name;
  for (const tab of tabs) {
    const isOpen = tab.dataset.tool === name;
    tab.setAttribute("aria-selected", isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    element(tab.dataset.tool).hidden = !isOpen;
  }
  draw();
}

for (const tab of tabs) {
  tab.onclick = () => open(tab.dataset.tool);
  tab.onkeydown = event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key], usable = tabs.filter(known => !known.hidden);
    if (!step) return;
    const neighbour = usable.at((usable.indexOf(tab) + step) % usable.length);
    neighbour.focus();
    neighbour.click();
  };
}

// Directions.

function laySliders() {
  const rows = amounts.map((amount, number) => {
    const output = make("output", {textContent: amount.toFixed(1)});
    const slider = make("input", {type: "range", min: -FURTHEST, max: FURTHEST, step: 0.1, value: amount});
    slider.oninput = () => {
      amounts[number] = +slider.value;
      output.textContent = amounts[number].toFixed(1);
      draw();
    };
    return make("label", {}, String(number + 1), slider, output);
  });
  element("sliders").replaceChildren(...rows);
}

function reset() {
  amounts.fill(0);
  laySliders();
  draw();
}

element("reset").onclick = reset;

// Walk.

const pad = element("pad");

function layCorners() {
  list(".corner").forEach((button, number) => {
    button.dataset.point = corners[number];
    button.setAttribute("aria-pressed", number === corner);
    fill(button);
  });
  Object.assign(pad.firstElementChild.style, {left: `${100 * place.x}%`, top: `${100 * place.y}%`});
}

list(".corner").forEach((button, number) => {
  button.onclick = () => {
    corner = number;
    layCorners();
  };
});

function move(x, y) {
  const within = share => +Math.min(Math.max(share, 0), 1).toFixed(4);
  place = {x: within(x), y: within(y)};
  draw();
}

function drag(event) {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  const {left, top, width, height} = pad.getBoundingClientRect();
  move((event.clientX - left) / width, (event.clientY - top) / height);
}

pad.onpointermove = drag;
pad.onpointerdown = event => {
  pad.setPointerCapture(event.pointerId);
  drag(event);
};
pad.onkeydown = event => {
  const step = {ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05]}[event.key];
  if (!step) return;
  event.preventDefault();
  move(place.x + step[0], place.y + step[1]);
};

// Mix.

const mixes = new Map();  // addresses of what was drawn in this epoch, by content, style and gates
let layout = 0;  // the newest one; what an older one has asked for is dropped

function layGates() {
  const rows = runs[run].gates.map(side => {
    const box = make("input", {type: "checkbox", checked: gates.has(side)});
    box.onchange = () => {
      if (box.checked) gates.add(side);
      else if (gates.size > 1) gates.delete(side);
      else box.checked = true;  // a mix takes its style from somewhere
      draw();
    };
    return make("label", {}, box, String(side));
  });
  element("gates").replaceChildren(element("gates").firstElementChild, ...rows);
}

async function drawMixes() {
  const mine = ++layout, {contents, styles} = lists, chosen = runs[run].gates.filter(side => gates.has(side)).join();
  const head = point => fill(Object.assign(make("div", {className: "tile"}), {title: named(point)}), point);
  const cells = styles.flatMap(style => contents.map(content => {
    const caption = `${named(content)} in the style of ${isSeed(style) ? `seed ${style}` : named(style)}`;
    const button = make("button", {type: "button", className: "tile waiting", title: caption});
    return {content, style, caption, button, key: [content, style, chosen].join()};
  }));
  const rows = styles.map((style, row) => {
    const buttons = cells.slice(row * contents.length, (row + 1) * contents.length).map(cell => cell.button);
    return [head(style), ...buttons];
  });
  element("mixes").style.gridTemplateColumns = `repeat(${contents.length + 1}, minmax(0, 1fr))`;
  element("mixes").replaceChildren(make("span"), ...contents.map(head), ...rows.flat());
  for (const {content, style, caption, button, key} of cells) {
    if (!mixes.has(key)) {
      const bytes = await (await ask("mix", drawn({content, style, gates: chosen}))).blob();
      if (mine !== layout || tool !== "mix") return;
      mixes.set(key, URL.createObjectURL(bytes));
    }
    const source = mixes.get(key);
    button.append(make("img", {src: source, alt: caption}));
    button.classList.remove("waiting");
    button.onclick = () => present(source, caption);
    if (button === cells[0].button) button.click();
  }
}

// The pictures below.

function fill(tile, point = tile.dataset.point) {
  const source = sources.get(point);
  tile.dataset.point = point;
  tile.classList.toggle("waiting", !source);
  tile.replaceChildren(...(source ? [make("img", {src: source, alt: named(point)})] : []));
  return tile;
}

function know(point, source) {
  sources.set(point, source);
  for (const tile of list(`[data-point="${point}"]`)) fill(tile);
}

function addTile(point, name, title = named(point)) {
  const tile = fill(make("button", {type: "button", className: "tile"}), point);
  tile.onclick = () => choose(point);
  element("grid").append(make("figure", {}, tile, make("figcaption", {textContent: name, title})));
}

async function drawSeeds(seeds) {
  const asked = epoch;
  for (let start = 0; start < seeds.length; start += AT_ONCE) {
    const answer = await ask("images", drawn({seeds: seeds.slice(start, start + AT_ONCE).join()}));
    const {images} = await answer.json();
    if (asked !== epoch) return;
    for (const {seed, png} of images) know(String(seed), `data:image/png;base64,${png}`);
  }
}

function more() {
  const seeds = Array.from({length: MORE}, (_, number) => String(next + number));
  next += MORE;
  for (const seed of seeds) addTile(seed, seed);
  mark();
  const used = [...corners, ...lists.contents, ...lists.styles].filter(isSeed);
  const wanted = [...new Set([...seeds, ...used])].filter(seed => !sources.has(seed));
  drawSeeds(wanted).catch(complain);
}

function layGrid() {
  next = +element("first").value;
  element("grid").replaceChildren();
  for (const {point, name, title, source} of own[run]) {
    sources.set(point, source);
    addTile(point, name, title);
  }
  more();
}

element("more").onclick = more;
element("first").onchange = () => { if (element("first").reportValidity()) layGrid(); };

// Pictures of one's own.

async function project(file) {
  if (file.size > MAX_UPLOAD) throw new Error(`${file.name} has more than 64 MiB.\nChoose a smaller file.`);
  say(`Projecting ${file.name} ...`);
  const asked = run, answer = await ask("project", ofClass(), {method: "POST", body: file});
  const {point, psnr, png} = await answer.json();
  const name = file.name, title = `${name}, PSNR ${psnr.toFixed(1)} dB`;
  own[asked].unshift({point, name, title, source: `data:image/png;base64,${png}`});
  say(`Projected ${title}`);
  if (asked !== run) return;
  layGrid();
  reset();  // to see what was found, as it is
  choose(point);
}

async function projectAll(files) {
  try {
    for (const file of files) await project(file);
  } catch (error) {
    say(error.message, true);  // until something else is said, whatever is drawn meanwhile
  }
}

element("own").onclick = () => element("file").click();
element("file").onchange = () => {
  projectAll([...element("file").files]);
  element("file").value = "";
};
document.ondragover = event => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = () => document.body.classList.remove("dropping");
document.ondrop = event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  projectAll([...event.dataTransfer.files]);
};

// The run and its settings.

function renew() {
  epoch += 1;
  for (const source of mixes.values()) URL.revokeObjectURL(source);
  mixes.clear();
  sources.clear();
  layGrid();
  draw();
}

function openRun(number) {
  run = number;
  const {image_size: [height, width], nimg, classes} = runs[run];
  const trained = nimg === null ? "" : `, ${Math.round(nimg / 1000).toLocaleString("en")} kimg`;
  element("facts").textContent = `${width === height ? width : `${width} x ${height}`} px${trained}`;
  document.documentElement.style.setProperty("--ratio", width / height);
  element("class").replaceChildren(make("option", {value: "", textContent: "any"}),
    ...classes.map(name => make("option", {value: name, textContent: name})));
  element("class-setting").hidden = !classes.length;
  element("tab-mix").hidden = !runs[run].gates.length;
  begin();
  laySliders();
  layGates();
  if (element(`tab-${tool}`).hidden) open("directions");
  renew();
}

element("run").onchange = () => openRun(+element("run").value);
element("class").onchange = renew;
element("truncation").oninput = () => {
  element("truncation-value").textContent = (+element("truncation").value).toFixed(2);
};
element("truncation").onchange = renew;

(async () => {
  ({runs} = await (await ask("runs")).json());
  own = runs.map(() => []);
  element("run").replaceChildren(...runs.map(({name}, number) => make("option", {value: number, textContent: name})));
  openRun(0);
})().catch(complain);
