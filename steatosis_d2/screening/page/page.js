"use strict";

const TOKEN = new URLSearchParams(location.search).get("token") ?? "";
const COLORS = { unreviewed: "#ffd21f", accepted: "#00b36b", rejected: "#ff6a2b" };
const VERDICT_NAMES = { unreviewed: "to do", accepted: "accepted", rejected: "rejected" };
const POLL_MS = 4000;
const CLICK_PX = 4; // a press that moves less is a click
const CLOSE_UP_MARGIN = 0.6; // of the label's longer side, on each side
const PIECE_PX = 512; // of a slide, as the server makes them
const LOAD_MS = 150; // after the view has come to rest, what is in it is asked for
const LISTED_REGIONS = 100;
const HEAT_PX = 48; // squares that are shown smaller than this are coloured by their fat

const element = (id) => document.getElementById(id);
const tile = element("tile");
const closeUp = element("close-up");

const page = {
  reviewer: "",
  images: [],
  image: null, // record of the one that is shown
  pixels: null, // ImageBitmap; null for a slide, which the viewer shows
  viewer: null, // of OpenSeadragon, under the canvas
  regions: [], // squares of a slide that hold labels, the most doubtful first
  side: 0, // of a square, in px of the slide
  region: null, // the square that is judged
  loaded: null, // the window of the slide whose labels are known
  hidden: 0, // labels in view that are too many to be shown
  closeUp: { id: null, pixels: null }, // of a slide's label
  labels: new Map(), // id -> label as the server describes it, with outline (Path2D) and diameter
  last: 0, // number of the last decision that is shown
  undoable: null,
  selected: [], // ids, the last one is the current label
  place: null, // the label that was current last, to go on from where it was in the order
  inTurn: false, // whether the current label came by "next", so that a verdict goes on to the next
  filters: { verdict: "", certainty: [0, 1], diameter: [0, Infinity] },
  view: { scale: 1, x: 0, y: 0 }, // CSS px for each px of the image; where its corner is
  mode: "", // "", "split", "redraw" or "draw"
  points: [], // of the line or outline being drawn, in px of the image
  outlinesHidden: false,
};

// Talking to the server

async function request(path, options = {}) {
  const headers = { "X-Token": TOKEN, "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    showTrouble("The server does not answer. Everything that the page has shown is saved.");
    throw new Error("no answer");
  }
  if (response.status === 403) {
    showTrouble("The server was started anew: open the address that it printed.");
    throw new Error("refused");
  }
  showTrouble("");
  return response;
}

async function requestJson(path, options) {
  const response = await request(path, options);
  return { status: response.status, content: await response.json() };
}

const asReviewer = () => `reviewer=${encodeURIComponent(page.reviewer)}`;

// One thing at a time, in the order of the keys: each decision is made on what the one before has
// left. After a failure what waits is dropped, since it was meant for another state.
let queue = Promise.resolve();
let generation = 0;

function enqueue(task) {
  const mine = generation;
  queue = queue.then(async () => {
    if (mine !== generation) return;
    try {
      await task();
    } catch (error) {
      generation += 1;
      if (element("trouble").hidden) showMessage(`${error}`);
    }
  });
}

async function loadImages() {
  const { status, content } = await requestJson(`api/images?${asReviewer()}`);
  if (status !== 200) throw new Error(content.message);
  page.images = content.images;
  element("certainty-name").textContent = content.ranked_by === "score" ? "Score" : "Solidity";
  page.rankedBy = content.ranked_by;
  drawImageList();
}

async function openImage(image) {
  if (image.is_slide) await openSlide(image);
  else await openTile(image);
  tile.dataset.image = image.id;
}

async function openTile(image) {
  const { status, content } = await requestJson(`api/images/${image.id}?${asReviewer()}`);
  if (status !== 200) throw new Error(content.message);
  if (page.image?.id !== image.id) await loadPixels(image);
  begin(image);
  apply(content);
  fitImage();
  goToNext();
}

/** Show an image of which nothing is known yet. */
function begin(image) {
  Object.assign(page, {
    image, labels: new Map(), selected: [], place: null, inTurn: false,
    regions: [], region: null, loaded: null, hidden: 0, last: 0, undoable: null,
  });
  if (image.is_slide) page.pixels = null;
  document.body.classList.toggle("on-slide", image.is_slide);
  element("slide").hidden = !image.is_slide;
  stopDrawing();
  location.hash = `image=${image.id}`;
}

// Slides: the viewer shows the pieces in view, the canvas above it the labels in view

async function openSlide(image) {
  const isNew = page.image?.id !== image.id || !page.viewer;
  begin(image);
  if (isNew) showPieces(image);
  fitImage();
  await loadRegions();
  await openRegion(page.regions[0]);
}

function showPieces({ id, width, height }) {
  page.viewer?.destroy();
  const most = Math.ceil(Math.log2(Math.max(width, height, PIECE_PX) / PIECE_PX));
  page.viewer = OpenSeadragon({
    element: element("slide"),
    tileSources: {
      width, height, tileSize: PIECE_PX, minLevel: 0, maxLevel: most,
      getTileUrl: (level, column, row) =>
        `api/images/${id}/pieces/${most - level}/${column}_${row}.jpg?token=${encodeURIComponent(TOKEN)}`,
    },
    drawer: "canvas",
    showNavigationControl: false,
    mouseNavEnabled: false,
    animationTime: 0,
    blendTime: 0,
    immediateRender: true,
    visibilityRatio: 0,
    minZoomImageRatio: 0.001,
    maxZoomPixelRatio: 1000,
  });
  page.viewer.addHandler("open", refresh);
  page.viewer.addHandler("tile-load-failed", ({ tile: piece }) => enqueue(() => explain(piece.getUrl())));
}

/** Say why a piece of the slide is not shown. */
async function explain(address) {
  const response = await request(address);
  if (!response.ok) showMessage((await response.json()).message);
}

/** Let the viewer show what the canvas shows, if that has changed: it is slower than the canvas. */
function moveViewer() {
  const { viewer, view, image } = page;
  const shown = [view.scale, view.x, view.y, tile.clientWidth, tile.clientHeight].join();
  if (!viewer?.isOpen() || viewer.shown === shown) return;
  viewer.shown = shown;
  const side = view.scale * image.width; // CSS px across the slide, which is 1 for the viewer
  const [left, top] = [-view.x / side, -view.y / side];
  const bounds = new OpenSeadragon.Rect(left, top, tile.clientWidth / side, tile.clientHeight / side);
  viewer.viewport.fitBounds(bounds, true);
}

async function loadRegions() {
  const { status, content } = await requestJson(`api/images/${page.image.id}/regions?${asReviewer()}`);
  if (status !== 200) throw new Error(content.message);
  Object.assign(page, content);
  const sum = (name) => page.regions.reduce((total, region) => total + region[name], 0);
  for (const verdict of Object.keys(COLORS)) page.image[verdict] = sum(verdict);
  if (page.region) page.region = page.regions.find(isSameAs(page.region)) ?? page.region;
  drawImageList();
}

/** After a decision: what the region and the slide hold now, as far as the page knows. */
function countRegion() {
  const { image, region } = page;
  if (!region) return;
  const now = { accepted: 0, rejected: 0, unreviewed: 0, doubt: 0 };
  for (const label of [...page.labels.values()].filter(isInRegion)) {
    now[label.verdict] += 1;
    if (isToDo(label)) now.doubt += page.rankedBy === "score" ? 1 - (label.certainty ?? 0) : 1;
  }
  for (const verdict of Object.keys(COLORS)) image[verdict] += now[verdict] - region[verdict];
  Object.assign(region, now);
  drawImageList();
}

const isSameAs = (region) => ({ left, top }) => left === region?.left && top === region?.top;

async function openRegion(region) {
  page.region = region ?? null;
  if (region) {
    const box = [region.left, region.top, page.side, page.side];
    centreOn(box, (0.9 * Math.min(tile.clientWidth, tile.clientHeight)) / page.side);
  }
  Object.assign(page, { selected: [], place: null });
  await loadView();
  drawImageList();
  if (region) goToNext();
}

async function turnToRegion(direction) {
  if (!page.regions.length) return;
  const at = page.regions.findIndex(isSameAs(page.region));
  const count = page.regions.length;
  await openRegion(page.regions[(Math.max(at, 0) + direction + count) % count]);
}

/** What to know of a slide: what is in view, a little around it, and the region that is judged. */
function windowToLoad() {
  const [left, top] = toImage([0, 0]);
  const [right, bottom] = toImage([tile.clientWidth, tile.clientHeight]);
  const [dx, dy] = [(right - left) / 4, (bottom - top) / 4];
  const window = { left: left - dx, top: top - dy, right: right + dx, bottom: bottom + dy };
  const { region, side } = page;
  const isApart =
    !region || region.left > window.right || region.top > window.bottom ||
    region.left + side < window.left || region.top + side < window.top;
  if (isApart) return window;
  return {
    left: Math.min(window.left, region.left),
    top: Math.min(window.top, region.top),
    right: Math.max(window.right, region.left + side),
    bottom: Math.max(window.bottom, region.top + side),
  };
}

/** Ask for the labels in view; where they are too many to be shown, those selected stay. */
async function loadView() {
  if (!page.image?.is_slide) return;
  const limit = (value) => Math.min(Math.max(value, -1e6), 1e6);
  const window = windowToLoad();
  const query = Object.entries(window).map(([name, value]) => `${name}=${limit(value)}`).join("&");
  const { status, content } = await requestJson(`api/images/${page.image.id}/view?${asReviewer()}&${query}`);
  if (status !== 200) throw new Error(content.message);
  page.loaded = window;
  page.hidden = content.hidden;
  const kept = new Map(page.selected.map((id) => [id, page.labels.get(id)]));
  const known = page.labels;
  page.labels = content.hidden ? kept : new Map();
  apply(content, known);
}

let loadTimer = 0;

/** Load once the view has come to rest, if it shows more than is known. */
function loadWhenAtRest() {
  const [left, top] = toImage([0, 0]);
  const [right, bottom] = toImage([tile.clientWidth, tile.clientHeight]);
  const { loaded } = page;
  const isKnown =
    loaded && !page.hidden && left >= loaded.left && top >= loaded.top &&
    right <= loaded.right && bottom <= loaded.bottom;
  clearTimeout(loadTimer);
  if (!isKnown) loadTimer = setTimeout(() => enqueue(loadView), LOAD_MS);
}

async function loadPixels(image) {
  const response = await request(`api/images/${image.id}/pixels`);
  if (response.status !== 200) throw new Error((await response.json()).message);
  page.pixels = await createImageBitmap(await response.blob());
}

/** Take over what the server says has changed; returns the ids that were not known before. */
function apply(changes, before = page.labels) {
  const added = changes.labels.filter((label) => !before.has(label.id)).map(({ id }) => id);
  for (const id of changes.gone) page.labels.delete(id);
  for (const label of changes.labels) {
    const known = before.get(label.id);
    label.outline = known ? known.outline : new Path2D(label.path);
    label.diameter = 2 * Math.sqrt(label.area_px / Math.PI) * (page.image.mpp ?? 1);
    page.labels.set(label.id, label);
  }
  page.last = changes.last;
  page.undoable = changes.undoable;
  page.selected = page.selected.filter((id) => page.labels.has(id));
  if (!page.image.is_slide) countProgress();
  refresh();
  return added;
}

function update(since = page.last) {
  return requestJson(`api/images/${page.image.id}?${asReviewer()}&since=${since}`);
}

async function poll() {
  if (!page.image) return;
  const { status, content } = await update();
  if (status !== 200) throw new Error(content.message);
  if (content.gone.length) showMessage("Another reviewer has changed outlines.");
  // Of a slide, what others have changed elsewhere is not shown, and need not be known.
  const isNear = ({ id, box: [x, y] }) =>
    page.labels.has(id) || (page.loaded && x < page.loaded.right && y < page.loaded.bottom &&
      x >= page.loaded.left && y >= page.loaded.top);
  if (page.image.is_slide) content.labels = content.labels.filter(isNear);
  apply(content);
}

/** Send a decision; what it changes is shown once the server has it on disk. */
async function decide(action, ids, more = {}) {
  const labels = Object.fromEntries(ids.map((id) => [id, page.labels.get(id).revision]));
  const decision = { reviewer: page.reviewer, action, labels, since: page.last, ...more };
  const { status, content } = await requestJson(`api/images/${page.image.id}/decisions`, {
    method: "POST",
    body: JSON.stringify(decision),
  });
  if (status === 200) {
    const about = content.labels.map(({ id }) => id);
    const added = apply(content);
    if (page.image.is_slide) countRegion();
    return { added, about };
  }
  if (status === 409) apply((await update()).content);
  showMessage(content.message);
  generation += 1;
  return null;
}

// What the reviewer does

const ACTIONS = {
  accept: () => judge("accept"),
  reject: () => judge("reject"),
  "accept-shown": acceptShown,
  next: goToNext,
  undo,
  merge,
  split: () => startDrawing("split"),
  redraw: () => startDrawing("redraw"),
  draw: () => startDrawing("draw"),
};

async function judge(action) {
  if (!page.selected.length) return showMessage("Select a label first: N, or click it.");
  const done = await decide(action, page.selected);
  if (done && page.inTurn) goToNext();
}

async function acceptShown() {
  const ids = inOrder().filter(isToDo).map(({ id }) => id);
  if (!ids.length) return showMessage("Nothing that is shown is left to do.");
  if (await decide("accept", ids)) {
    goToNext();
    showMessage(`${ids.length} labels accepted. U takes it back.`);
  }
}

async function undo() {
  if (page.undoable === null) return showMessage("You have nothing to undo on this image.");
  const done = await decide("undo", [], { undoes: page.undoable });
  if (done?.about.length) select([done.about[0]]);
}

async function merge() {
  if (page.selected.length < 2) {
    return showMessage("Select two labels or more: click one, Shift-click the others.");
  }
  const done = await decide("merge", page.selected);
  if (done) select(done.added, { inTurn: page.inTurn });
}

async function finishDrawing() {
  const { mode, points } = page;
  const ids = mode === "draw" ? [] : [labelToDraw()?.id ?? null];
  if (ids.includes(null)) return showMessage("Begin on a label, or select it first.");
  const done = await decide(mode, ids, { points });
  page.points = [];
  if (!done) return refresh();
  const { inTurn } = page;
  stopDrawing();
  select(done.added, { inTurn });
}

/** The label that is selected, or else the one that the line's middle lies in. */
function labelToDraw() {
  if (page.selected.length) return page.labels.get(page.selected.at(-1));
  return labelAt(page.points[Math.floor(page.points.length / 2)]);
}

function startDrawing(mode) {
  if (mode === "redraw" && page.selected.length !== 1) {
    return showMessage("Select the one label to redraw.");
  }
  if (mode === "split" && page.selected.length > 1) page.selected = page.selected.slice(-1);
  page.mode = mode;
  page.points = [];
  const hint = element("hint");
  hint.hidden = false;
  hint.textContent =
    mode === "split"
      ? "Draw a line right across the label. Esc stops."
      : "Draw round the object, or click its corners and press Enter. Esc stops.";
  refresh();
}

function stopDrawing() {
  page.mode = "";
  page.points = [];
  element("hint").hidden = true;
  refresh();
}

function select(ids, { inTurn = false } = {}) {
  page.selected = ids;
  page.inTurn = inTurn;
  if (ids.length) {
    page.place = page.labels.get(ids.at(-1));
    bringIntoView(page.place);
  }
  refresh();
}

// Order and filters

const isToDo = (label) => label.verdict === "unreviewed";

function isShown(label) {
  const { verdict, certainty, diameter } = page.filters;
  const within = (value, [from, to]) => value >= from && value <= to;
  return (
    (!verdict || label.verdict === verdict) &&
    (label.certainty === null || within(label.certainty, certainty)) &&
    within(label.diameter, diameter)
  );
}

/** A label is judged with the square that its middle is in. */
function isInRegion({ box: [left, top, width, height] }) {
  const { region, side } = page;
  if (!region) return true;
  const [x, y] = [left + width / 2 - region.left, top + height / 2 - region.top];
  return x >= 0 && x < side && y >= 0 && y < side;
}

/** From doubtful to certain; what a person has drawn comes last. */
function compare(one, other) {
  return (one.certainty ?? 2) - (other.certainty ?? 2) || one.id - other.id;
}

const inOrder = () =>
  [...page.labels.values()].filter((label) => isShown(label) && isInRegion(label)).sort(compare);

function goToNext() {
  const toDo = inOrder().filter(isToDo);
  const next = toDo.find((label) => page.place && compare(label, page.place) > 0) ?? toDo[0];
  if (next) return select([next.id], { inTurn: true });
  select([]);
  const region = page.regions.find((one) => one.unreviewed && !isSameAs(page.region)(one));
  if (region && !page.filters.verdict) {
    showMessage("This region is done. Here is the next.");
    return enqueue(() => openRegion(region));
  }
  showMessage(sayWhyNothingIsNext());
}

function sayWhyNothingIsNext() {
  const left = [...page.labels.values()].filter(isToDo).length;
  if (page.hidden) return `${page.hidden} labels are in view: zoom in to see and judge them.`;
  if (left) return `Nothing left to do among what is shown; ${left} labels are filtered out.`;
  if (page.labels.size) return "All labels of this image are judged. ] opens the next one.";
  return "This image has no labels. I inserts one that was missed; ] opens the next image.";
}

function step(direction) {
  const order = inOrder();
  if (!order.length) return;
  const at = order.findIndex(({ id }) => id === page.selected.at(-1));
  const to = at < 0 ? (direction > 0 ? 0 : order.length - 1) : at + direction;
  select([order[(to + order.length) % order.length].id], { inTurn: true });
}

async function turnToImage(direction) {
  const { images } = page;
  const at = images.findIndex(({ id }) => id === page.image.id);
  const image = images[(at + direction + images.length) % images.length];
  await openImage(image);
}

// View

function fitImage() {
  const { width, height } = page.image;
  const scale = 0.97 * Math.min(tile.clientWidth / width, tile.clientHeight / height);
  centreOn([0, 0, width, height], scale);
}

function zoom(factor, [x, y]) {
  const { view } = page;
  const least = page.image.is_slide ? 0.0005 : 0.02;
  const scale = Math.min(Math.max(view.scale * factor, least), 40);
  const ratio = scale / view.scale;
  page.view = { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  refresh();
}

/** Show the middle of a box of the image in the middle; clamp may move it a little. */
function centreOn([left, top, width, height], scale, clamp = (offset) => offset) {
  const place = (middle, side, room) => clamp(room / 2 - middle * scale, side * scale, room);
  page.view = {
    scale,
    x: place(left + width / 2, page.image.width, tile.clientWidth),
    y: place(top + height / 2, page.image.height, tile.clientHeight),
  };
  refresh();
}

/** As near as the image's borders allow, so that no room is left empty. */
function keepFilled(offset, size, room) {
  return size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, offset));
}

/** Move the image only if the label would not be seen whole. */
function bringIntoView(label) {
  const { scale, x, y } = page.view;
  const [left, top, width, height] = label.box;
  const isWhole =
    left * scale + x >= 0 &&
    top * scale + y >= 0 &&
    (left + width) * scale + x <= tile.clientWidth &&
    (top + height) * scale + y <= tile.clientHeight;
  if (!isWhole) centreOn(label.box, scale, keepFilled);
}

function zoomToLabel() {
  const label = page.labels.get(page.selected.at(-1));
  if (!label) return;
  const side = Math.max(label.box[2], label.box[3]);
  centreOn(label.box, Math.min(tile.clientWidth, tile.clientHeight) / (4 * side));
}

const toImage = ([x, y]) => [
  (x - page.view.x) / page.view.scale,
  (y - page.view.y) / page.view.scale,
];

const probe = document.createElement("canvas").getContext("2d");

/** The smallest label that is shown at a point of the image. */
function labelAt([x, y]) {
  const hit = ({ box: [left, top, width, height], outline }) =>
    x >= left && x <= left + width && y >= top && y <= top + height &&
    probe.isPointInPath(outline, x, y, "evenodd");
  const under = [...page.labels.values()].filter((label) => isShown(label) && hit(label));
  return under.sort((one, other) => one.area_px - other.area_px)[0];
}

// Drawing: once a frame, and only if something has changed

let isDue = false;

function refresh() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (!page.pixels && !page.image?.is_slide) return;
    drawTile();
    drawPanel();
    drawCloseUp();
  });
}

function prepare(canvas) {
  const ratio = devicePixelRatio;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function drawTile() {
  const { scale, x, y } = page.view;
  const context = prepare(tile);
  const ratio = devicePixelRatio;
  context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
  context.imageSmoothingEnabled = scale < 3;
  if (page.pixels) context.drawImage(page.pixels, 0, 0);
  else drawSlide(context, scale);
  if (!page.outlinesHidden) drawOutlines(context, scale);
  drawPoints(context, scale);
  Object.assign(tile.dataset, { scale, x, y });
}

/** What lies between a slide and its outlines: where there is fat, and what is judged. */
function drawSlide(context, scale) {
  moveViewer();
  loadWhenAtRest();
  const { regions, region, side } = page;
  if (side * scale < HEAT_PX && !page.outlinesHidden) {
    for (const { left, top, fat } of regions) {
      context.fillStyle = `rgb(214 40 40 / ${Math.min(0.1 + 2 * fat, 0.8)})`;
      context.fillRect(left, top, side, side);
    }
  }
  if (!region) return;
  context.setLineDash([]);
  context.strokeStyle = "#0b3bd6";
  context.lineWidth = 2 / scale;
  context.strokeRect(region.left, region.top, side, side);
}

/** Each outline by itself: stroking them as one path takes several times as long. */
function drawOutlines(context, scale) {
  const [left, top] = toImage([0, 0]);
  const [right, bottom] = toImage([tile.clientWidth, tile.clientHeight]);
  const isInView = ({ box: [x, y, width, height] }) =>
    x < right && x + width > left && y < bottom && y + height > top;
  const visible = [...page.labels.values()].filter((label) => isShown(label) && isInView(label));
  for (const verdict of Object.keys(COLORS)) {
    setPen(context, verdict, scale, 1.6);
    for (const label of visible) if (label.verdict === verdict) context.stroke(label.outline);
  }
  for (const id of page.selected) strokeSelected(context, page.labels.get(id), scale);
}

function setPen(context, verdict, scale, width) {
  context.setLineDash(verdict === "rejected" ? [6 / scale, 3 / scale] : []);
  context.strokeStyle = COLORS[verdict];
  context.lineWidth = width / scale;
}

/** Corners round a label: they leave its edge, which is what is judged, in plain sight. */
function strokeSelected(context, label, scale) {
  setPen(context, label.verdict, scale, 2.6);
  context.stroke(label.outline);
  context.setLineDash([]);
  const gap = 6 / scale;
  const [left, top] = [label.box[0] - gap, label.box[1] - gap];
  const [right, bottom] = [label.box[0] + label.box[2] + gap, label.box[1] + label.box[3] + gap];
  const arm = Math.min(14 / scale, (right - left) / 3, (bottom - top) / 3);
  const corners = new Path2D();
  for (const [x, y, dx, dy] of [
    [left, top, arm, arm], [right, top, -arm, arm],
    [right, bottom, -arm, -arm], [left, bottom, arm, -arm],
  ]) {
    corners.moveTo(x + dx, y);
    corners.lineTo(x, y);
    corners.lineTo(x, y + dy);
  }
  for (const [color, width] of [["#fff", 6], ["#0b3bd6", 3.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width / scale;
    context.stroke(corners);
  }
}

function drawPoints(context, scale) {
  if (!page.points.length) return;
  context.setLineDash([]);
  context.beginPath();
  for (const [x, y] of page.points) context.lineTo(x, y);
  if (page.mode !== "split" && page.points.length > 2) context.closePath();
  for (const [color, width] of [["#fff", 4], ["#0b5cff", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = width / scale;
    context.stroke();
  }
}

function drawCloseUp() {
  const context = prepare(closeUp);
  const label = page.labels.get(page.selected.at(-1));
  if (!label) return;
  const [left, top, width, height] = label.box;
  const side = Math.max(width, height) * (1 + 2 * CLOSE_UP_MARGIN);
  const scale = Math.min(closeUp.width, closeUp.height) / side;
  context.setTransform(
    scale, 0, 0, scale,
    closeUp.width / 2 - (left + width / 2) * scale,
    closeUp.height / 2 - (top + height / 2) * scale
  );
  context.imageSmoothingEnabled = scale < 3;
  if (page.pixels) context.drawImage(page.pixels, 0, 0);
  else drawWindow(context, label, side);
  if (page.outlinesHidden) return;
  setPen(context, label.verdict, scale, 1.5 * devicePixelRatio);
  context.stroke(label.outline);
}

/** The pixels around a slide's label, as soon as they have come. */
function drawWindow(context, { id, box }, side) {
  const [left, top] = [box[0] + box[2] / 2 - side, box[1] + box[3] / 2 - side].map(Math.floor);
  const length = Math.min(Math.ceil(2 * side), 4096);
  if (page.closeUp.id === id) {
    if (page.closeUp.pixels) context.drawImage(page.closeUp.pixels, left, top);
    return;
  }
  page.closeUp = { id, pixels: null };
  const query = `left=${left}&top=${top}&width=${length}&height=${length}`;
  request(`api/images/${page.image.id}/window?${query}`)
    .then((response) => response.blob())
    .then(createImageBitmap)
    .then((pixels) => {
      if (page.closeUp.id !== id) return;
      page.closeUp.pixels = pixels;
      refresh();
    })
    .catch(() => {}); // the next label tries again
}

function drawPanel() {
  const order = inOrder();
  const label = page.labels.get(page.selected.at(-1));
  drawFacts(label, order);
  element("shown").textContent = `${order.length} of ${page.labels.size}`;
  element("to-do-shown").textContent = order.filter(isToDo).length;
  const enabled = {
    accept: label, reject: label, undo: page.undoable !== null,
    merge: page.selected.length > 1, redraw: page.selected.length === 1,
    "accept-shown": order.some(isToDo),
  };
  for (const button of document.querySelectorAll("[data-action]")) {
    const { action } = button.dataset;
    button.disabled = action in enabled && !enabled[action];
    button.setAttribute("aria-pressed", String(action === page.mode));
  }
  tile.classList.toggle("drawing", page.mode !== "");
}

function drawFacts(label, order) {
  const facts = element("facts");
  if (!label) return void (facts.textContent = "No label selected");
  const verdict = document.createElement("b");
  verdict.className = label.verdict;
  verdict.textContent = VERDICT_NAMES[label.verdict];
  const place = order.findIndex(({ id }) => id === label.id) + 1;
  const certainty =
    label.certainty === null ? "drawn by hand" : `${page.rankedBy} ${label.certainty.toFixed(2)}`;
  const several = page.selected.length > 1 ? `${page.selected.length} labels selected; last: ` : "";
  facts.replaceChildren(
    several, verdict, `, ${certainty}, ${label.diameter.toFixed(1)} ${unit()} across`,
    document.createElement("br"),
    place ? `label ${label.id}, ${place} of ${order.length} shown` : `label ${label.id}`
  );
}

const unit = () => (page.image.mpp ? "µm" : "px");

function countProgress() {
  const counts = { accepted: 0, rejected: 0, unreviewed: 0 };
  for (const { verdict } of page.labels.values()) counts[verdict] += 1;
  Object.assign(page.image, counts);
  drawImageList();
}

function drawImageList() {
  const list = element("images");
  if (list.children.length !== page.images.length) {
    list.replaceChildren(...page.images.map(makeImageEntry));
  }
  page.images.forEach((image, index) => {
    fillImageEntry(list.children[index].firstChild, image);
    listRegions(list.children[index], image);
  });
  const sum = (name) => page.images.reduce((total, image) => total + image[name], 0);
  const judged = sum("accepted") + sum("rejected");
  element("total").textContent = `${judged} of ${judged + sum("unreviewed")} labels judged`;
  if (!page.image) return;
  const { file_name: name, width, height, mpp } = page.image;
  element("image-name").textContent = name;
  element("image-facts").textContent =
    `${width} × ${height} px` + (mpp ? `, ${mpp} µm/px` : "");
  element("unit").textContent = unit();
  document.title = `${name} – Screening`;
}

/** Under a slide that is open, its regions. */
function listRegions(entry, image) {
  entry.querySelector(".regions")?.remove();
  if (image.id !== page.image?.id || !page.regions.length) return;
  const list = document.createElement("ol");
  list.className = "regions";
  for (const region of page.regions.slice(0, LISTED_REGIONS)) {
    const button = document.createElement("button");
    const total = region.accepted + region.rejected + region.unreviewed;
    button.textContent = region.unreviewed
      ? `${region.unreviewed} of ${total} to do, ${region.doubt.toFixed(1)} in doubt`
      : `${total} done`;
    button.title = `x ${Math.round(region.left)}, y ${Math.round(region.top)} px`;
    button.setAttribute("aria-current", String(isSameAs(page.region)(region)));
    button.onclick = () => {
      enqueue(() => openRegion(region));
      tile.focus();
    };
    const line = document.createElement("li");
    line.append(button);
    list.append(line);
  }
  entry.append(list);
}

function makeImageEntry(image) {
  const entry = document.createElement("li");
  entry.innerHTML =
    '<button><span class="name"></span><span class="count quiet"><span></span><span></span></span>' +
    '<span class="bar"><span class="accepted"></span><span class="rejected"></span></span></button>';
  entry.querySelector(".name").textContent = image.file_name;
  const button = entry.firstChild;
  button.title = image.file_name;
  button.onclick = () => {
      enqueue(() => openImage(image));
    tile.focus();
  };
  return entry;
}

function fillImageEntry(button, image) {
  const total = image.accepted + image.rejected + image.unreviewed;
  const [judged, rejected] = button.querySelectorAll(".count span");
  judged.textContent = total ? `${total - image.unreviewed} of ${total}` : "no labels";
  rejected.textContent = image.rejected ? `${image.rejected} rejected` : "";
  for (const verdict of ["accepted", "rejected"]) {
    button.querySelector(`.bar .${verdict}`).style.width = `${(100 * image[verdict]) / (total || 1)}%`;
  }
  const isCurrent = image.id === page.image?.id;
  if (isCurrent && button.getAttribute("aria-current") !== "true") {
    button.scrollIntoView({ block: "nearest" });
  }
  button.setAttribute("aria-current", String(isCurrent));
}

let messageTimer = 0;

function showMessage(text) {
  const message = element("message");
  message.textContent = text;
  message.hidden = false;
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => (message.hidden = true), 6000);
}

function showTrouble(text) {
  element("trouble").textContent = text;
  element("trouble").hidden = !text;
}

// Mouse

let press = null; // the press that is going on

const position = (event) => [event.offsetX, event.offsetY];

tile.addEventListener("pointerdown", (event) => {
  if (!page.image) return;
  tile.setPointerCapture(event.pointerId);
  const isDrawing = page.mode !== "" && event.button === 0;
  press = { isDrawing, start: position(event), at: position(event), moved: 0 };
  if (isDrawing) addPoint(event);
});

tile.addEventListener("pointermove", (event) => {
  if (!press) return;
  const [x, y] = position(event);
  const [dx, dy] = [x - press.at[0], y - press.at[1]];
  press.at = [x, y];
  press.moved += Math.hypot(dx, dy);
  if (press.isDrawing) addPoint(event);
  else if (press.moved >= CLICK_PX) {
    page.view.x += dx;
    page.view.y += dy;
    refresh();
  }
});

tile.addEventListener("pointerup", (event) => {
  if (!press) return;
  const { isDrawing, moved } = press;
  press = null;
  if (!isDrawing) return void (moved < CLICK_PX && event.button === 0 && click(event));
  // A line is done when the button is let go, an outline if it was drawn and not clicked.
  if (page.mode === "split" ? page.points.length > 1 : moved > 2 * CLICK_PX) enqueue(finishDrawing);
});

tile.addEventListener("dblclick", () => {
  if (page.mode && page.points.length > 2) enqueue(finishDrawing);
});

tile.addEventListener("contextmenu", (event) => event.preventDefault());

tile.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    if (page.image) zoom(Math.exp(-event.deltaY / 500), position(event));
  },
  { passive: false }
);

/** A point of the line, in px of the image, if it is a new one. */
function addPoint(event) {
  const point = toImage(position(event));
  const before = page.points.at(-1);
  if (before && Math.hypot(point[0] - before[0], point[1] - before[1]) < 0.5) return;
  page.points.push(point);
  refresh();
}

function click(event) {
  const label = labelAt(toImage(position(event)));
  if (!event.shiftKey) return select(label ? [label.id] : []);
  if (!label) return;
  const others = page.selected.filter((id) => id !== label.id);
  select(others.length < page.selected.length ? others : [...others, label.id]);
}

// Keyboard

const KEYS = {
  a: "accept", r: "reject", n: "next", u: "undo", m: "merge", s: "split", d: "redraw", i: "draw",
  "shift a": "accept-shown",
};

const OTHER_KEYS = {
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  "]": () => turnToImage(1),
  "[": () => turnToImage(-1),
  ".": () => turnToRegion(1),
  ",": () => turnToRegion(-1),
  PageDown: () => turnToImage(1),
  PageUp: () => turnToImage(-1),
  h: () => {
    page.outlinesHidden = !page.outlinesHidden;
    refresh();
  },
  f: fitImage,
  z: zoomToLabel,
  "+": () => zoom(1.25, [tile.clientWidth / 2, tile.clientHeight / 2]),
  "-": () => zoom(0.8, [tile.clientWidth / 2, tile.clientHeight / 2]),
  Enter: () => page.points.length > 1 && finishDrawing(),
  Escape: () => (page.mode ? stopDrawing() : select([])),
};

document.addEventListener("keydown", (event) => {
  if (!page.image || event.altKey || element("who").open) return;
  if (event.target.matches("input")) return;
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
  if ((event.ctrlKey || event.metaKey) && !isUndo) return;
  if (event.key === "Enter" && event.target.matches("button")) return;
  // The letter alone, whether Caps Lock is on or not.
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const key = event.shiftKey && letter === "a" ? "shift a" : letter;
  const run = isUndo ? ACTIONS.undo : (ACTIONS[KEYS[key]] ?? OTHER_KEYS[key]);
  if (!run) return;
  event.preventDefault();
  act(run);
});

function act(run) {
  element("message").hidden = true;
  enqueue(run);
}

for (const button of document.querySelectorAll("[data-action]")) {
  button.onclick = () => {
    act(ACTIONS[button.dataset.action]);
    tile.focus();
  };
}

// Filters

for (const button of document.querySelectorAll("[data-verdict]")) {
  button.onclick = () => {
    filter({ verdict: button.dataset.verdict });
    for (const other of document.querySelectorAll("[data-verdict]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    tile.focus();
  };
}

for (const [name, range] of Object.entries({ certainty: [0, 1], diameter: [0, Infinity] })) {
  const inputs = ["from", "to"].map((end) => element(`${name}-${end}`));
  const read = () =>
    filter({ [name]: inputs.map(({ value }, end) => (value === "" ? range[end] : Number(value))) });
  for (const input of inputs) {
    input.oninput = read;
    input.addEventListener("keydown", (event) => event.key === "Enter" && tile.focus());
  }
}

/** Change what is shown, after the keys that were pressed before. */
function filter(change) {
  enqueue(() => {
    Object.assign(page.filters, change);
    page.selected = page.selected.filter((id) => isShown(page.labels.get(id)));
    refresh();
  });
}

// Start

element("change-reviewer").onclick = askReviewer;

function askReviewer() {
  const dialog = element("who");
  const input = element("reviewer");
  input.value = page.reviewer;
  dialog.oncancel = (event) => {
    if (!page.reviewer) event.preventDefault();
  };
  dialog.onclose = () => setReviewer(input.value.trim() || page.reviewer);
  dialog.showModal();
  input.select();
}

function setReviewer(name) {
  if (!name) return askReviewer();
  page.reviewer = name;
  localStorage.setItem("reviewer", name);
  element("change-reviewer").textContent = `Reviewer: ${name}`;
  enqueue(async () => {
    await loadImages();
    const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("image"));
    await openImage(page.images.find(({ id }) => id === wanted) ?? page.images[0]);
    tile.focus();
  });
}

new ResizeObserver(refresh).observe(tile);
setInterval(() => enqueue(poll), POLL_MS);
const known = localStorage.getItem("reviewer");
if (known) setReviewer(known);
else askReviewer();
