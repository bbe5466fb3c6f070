// The same slices drawn in the browser by NiiVue, where it has WebGL2; without it, nothing is offered and nothing is missing.

const MOST_HU = 1e5;

/** Shows the button where the browser can draw; `show` writes the values of a place. */
export function offerFastView(base, form, hasCt, show) {
  const nothing = { look() {} };
  if (!document.createElement("canvas").getContext("webgl2")) return nothing;
  const [box, button, state, frame] = ["fast", "fast-toggle", "fast-state", "fast-frame"].map((id) => document.getElementById(id));
  const slices = document.getElementById("slices");
  let viewer = null;
  box.hidden = false;
  button.addEventListener("click", async () => {
    if (!frame.hidden) return turn(false);
    if (!viewer) {
      button.disabled = true;
      state.textContent = "The volumes are loading.";
      try {
        viewer = await load(base, hasCt, show);
      } catch (error) {
        frame.hidden = true;
        state.textContent = "This browser cannot draw the volumes: the slices above are drawn by the server.";
        return;
      } finally {
        button.disabled = false;
      }
    }
    state.textContent = "";
    turn(true);
    apply();
    frame.dataset.ready = "1";
  });
  const turn = (on) => {
    frame.hidden = !on;
    slices.hidden = on;
    button.textContent = on ? "Slices drawn by the server" : "Draw in this browser (WebGL2)";
    if (on) viewer.niivue.resizeListener();
  };
  const apply = () => { if (viewer && !frame.hidden) setLook(viewer, form); };
  return { look: apply };
}

async function load(base, hasCt, show) {
  const { Niivue } = await import("./niivue.js");
  const frame = document.getElementById("fast-frame");
  frame.hidden = false;
  const niivue = new Niivue({ isRadiologicalConvention: true, sagittalNoseLeft: true, backColor: [0, 0, 0, 1], show3Dcrosshair: false,
    multiplanarShowRender: 0, isOrientationTextVisible: true, dragAndDropEnabled: false, logLevel: "error", isColorbar: false,
    crosshairWidthUnit: "percent", crosshairWidth: 0.2, showAllOrientationMarkers: true });
  await niivue.attachToCanvas(document.getElementById("fast-canvas"));
  const volumes = [];
  if (hasCt) volumes.push({ url: `${base}/volumes/ct.nii.gz`, name: "ct.nii.gz", colormap: "gray" });
  volumes.push({ url: `${base}/volumes/pet.nii.gz`, name: "pet.nii.gz", colormap: hasCt ? "hot" : "gray" });
  volumes.push({ url: `${base}/volumes/districts.nii.gz`, name: "districts.nii.gz", colormap: "random", opacity: 0 });
  await niivue.loadVolumes(volumes);
  const values = latest(async ([right, front, up]) => {
    const answer = await fetch(`${base}/values?x=${-right}&y=${-front}&z=${up}`, { credentials: "same-origin" });
    if (answer.ok) show(await answer.json());
  });
  niivue.onLocationChange = (place) => values(place.mm);
  niivue.setSliceType(niivue.sliceTypeMultiplanar);
  return { niivue, hasCt };
}

/** The form's window, scale, opacity and borders, as the server would draw them. */
function setLook({ niivue, hasCt }, form) {
  const shown = hasCt ? form.elements.show.value : "pet";
  const [ct, pet] = hasCt ? niivue.volumes : [null, niivue.volumes[0]];
  const districts = niivue.volumes[niivue.volumes.length - 1];
  if (ct) {
    const centre = Number(form.elements.centre.value), width = Number(form.elements.width.value);
    ct.cal_min = Math.max(-MOST_HU, centre - width / 2);
    ct.cal_max = centre + width / 2;
    ct.opacity = shown === "pet" ? 0 : 1;
  }
  pet.cal_min = 0;
  pet.cal_max = Number(form.elements.suv.value);
  pet.opacity = shown === "fused" ? Number(form.elements.opacity.value) / 100 : shown === "pet" ? 1 : 0;
  pet.setColormap(shown === "pet" ? "gray" : "hot");
  pet.colormapInvert = shown === "pet";
  districts.opacity = form.elements.borders.checked ? 0.3 : 0;
  niivue.updateGLVolume();
}

function latest(task) {
  let running = false, wanted = null;
  return async (wish) => {
    wanted = wish;
    if (running) return;
    running = true;
    while (wanted) { const now = wanted; wanted = null; await task(now); }
    running = false;
  };
}
