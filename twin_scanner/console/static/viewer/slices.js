// The slices without a page load: keys, wheel, swipe and click; the server draws each of them.
import { offerFastView } from "./fast.js";

const slices = document.getElementById("slices");
const form = document.getElementById("look");
const words = document.querySelector("#values output");

if (slices && form) start();

function start() {
  const base = `/jobs/${slices.dataset.job}/slices`;
  const views = [...slices.querySelectorAll("figure")].map((figure) => view(figure, base));
  const byPlane = Object.fromEntries(views.map((one) => [one.plane, one]));
  for (const one of views) listen(one, views, byPlane);
  form.addEventListener("submit", (event) => { event.preventDefault(); lookChanged(); });
  form.addEventListener("input", (event) => lookChanged(event.target));
  for (const one of views) {
    form.elements[one.plane].addEventListener("input", (event) => one.go(event.target.valueAsNumber));
  }
  const fast = offerFastView(base, form, Boolean(slices.dataset.hasCt), show);

  function lookChanged(field) {
    const preset = form.elements.preset;
    if (field === preset && preset.selectedOptions[0].dataset.width) {
      form.elements.centre.value = Number(preset.selectedOptions[0].dataset.centre);
      form.elements.width.value = Number(preset.selectedOptions[0].dataset.width);
    } else if (field === form.elements.centre || field === form.elements.width) {
      preset.value = "free";
    }
    if (!form.checkValidity()) return;
    for (const one of views) one.draw();
    fast.look();
  }
}

/** The parameters of every picture, as the form says them. */
function look() {
  const parameters = new URLSearchParams();
  for (const name of ["show", "preset", "centre", "width", "suv", "opacity"]) parameters.set(name, form.elements[name].value);
  if (form.elements.borders.checked) parameters.set("borders", "1");
  return parameters;
}

/** One plane: of several pictures wanted while one is on its way, only the last one is asked for. */
function view(figure, base) {
  const image = figure.querySelector("img");
  const count = Number(figure.dataset.count);
  const one = { figure, image, plane: figure.dataset.plane, index: Number(figure.dataset.index), base };
  let loading = false, wanted = "";
  const next = () => {
    loading = false;
    if (wanted) { const source = wanted; wanted = ""; load(source); }
  };
  image.addEventListener("load", next);
  image.addEventListener("error", next);
  const load = (source) => { loading = true; image.src = source; };
  one.draw = () => {
    const source = `${base}/${one.plane}/${one.index}.jpeg?${look()}`;
    if (loading) wanted = source; else load(source);
  };
  one.go = (index) => {
    if (!Number.isFinite(index)) return;
    const within = Math.min(Math.max(Math.round(index), 0), count - 1);
    if (within === one.index) return;
    one.index = within;
    figure.dataset.index = String(within);
    figure.querySelector(".viewer-place").textContent = String(within);
    image.alt = image.alt.replace(/slice \d+/, `slice ${within}`);
    form.elements[one.plane].value = String(within);
    const address = new URL(location.href);
    address.searchParams.set(one.plane, String(within));
    history.replaceState(null, "", address);
    one.draw();
  };
  one.last = count - 1;
  return one;
}

function listen(one, views, byPlane) {
  const { figure, image } = one;
  const steps = { first: () => one.go(0), "back 10": () => one.go(one.index - 10), back: () => one.go(one.index - 1),
    forward: () => one.go(one.index + 1), "forward 10": () => one.go(one.index + 10), last: () => one.go(one.last) };
  const beside = (by) => views[(views.indexOf(one) + by + views.length) % views.length].figure.focus();
  const keys = { ArrowUp: steps.forward, ArrowDown: steps.back, PageUp: steps["forward 10"], PageDown: steps["back 10"],
    Home: steps.first, End: steps.last, ArrowLeft: () => beside(-1), ArrowRight: () => beside(1) };
  figure.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const link of figure.querySelectorAll("a[data-step]")) {
    link.addEventListener("click", (event) => { event.preventDefault(); steps[link.dataset.step](); });
  }
  image.addEventListener("wheel", (event) => {
    event.preventDefault();
    one.go(one.index + Math.sign(event.deltaY));
  }, { passive: false });
  let touched = null;
  image.addEventListener("touchstart", (event) => { touched = event.touches[0].clientY; }, { passive: true });
  image.addEventListener("touchmove", (event) => {
    const moved = Math.trunc((touched - event.touches[0].clientY) / 12);
    if (moved) { touched = event.touches[0].clientY; one.go(one.index + moved); }
  }, { passive: true });
  const values = latest((pixel) => ask(`${one.base}/${one.plane}/${one.index}/values?${pixel}`).then(show));
  image.addEventListener("pointermove", (event) => values(pixelUnder(event, image)));
  image.addEventListener("click", async (event) => {
    const pixel = pixelUnder(event, image);
    if (!pixel) return;
    const found = await ask(`${one.base}/${one.plane}/${one.index}/values?${pixel}`);
    if (!found) return;
    show(found);
    for (const [plane, index] of Object.entries(found.slices)) if (plane !== one.plane) byPlane[plane].go(index);
  });
}

/** Row and column of the picture under a pointer; the picture is centred in its box where it is smaller. */
function pixelUnder(event, image) {
  const box = image.getBoundingClientRect();
  const [columns, rows] = [image.naturalWidth, image.naturalHeight];
  const scale = Math.min(box.width / columns, box.height / rows);
  const column = Math.floor((event.clientX - box.left - (box.width - columns * scale) / 2) / scale);
  const row = Math.floor((event.clientY - box.top - (box.height - rows * scale) / 2) / scale);
  return column >= 0 && row >= 0 && column < columns && row < rows ? `row=${row}&column=${column}` : "";
}

/** Runs a task for the last of many wishes, one at a time. */
function latest(task) {
  let running = false, wanted = "";
  return async function run(wish) {
    wanted = wish;
    if (running) return;
    running = true;
    while (wanted) { const now = wanted; wanted = ""; await task(now); }
    running = false;
  };
}

async function ask(address) {
  const answer = await fetch(address, { credentials: "same-origin" });
  return answer.ok ? answer.json() : null;
}

/** The values of a place in words. */
function show(found) {
  if (!found) return;
  const parts = [];
  if (found.hu !== null) parts.push(`${Math.round(found.hu)} HU`);
  if (found.suv !== null) parts.push(`SUV ${found.suv.toFixed(2)}`);
  parts.push(found.district ?? "outside of the districts");
  parts.push(`at ${found.position_lps_mm.map((mm) => mm.toFixed(1)).join(", ")} mm (L, P, H)`);
  words.textContent = parts.join(" · ");
}
