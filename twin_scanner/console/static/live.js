// Keeps the overview as it is now: the server sends the part again whenever it has changed.
const part = document.getElementById("live");
const state = document.getElementById("live-state");
const events = new EventSource("/live");
events.onopen = () => { state.textContent = "Live."; };
events.onerror = () => { state.textContent = "The connection is lost; it is tried again."; };
events.onmessage = (event) => {
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.innerHTML = JSON.parse(event.data).html;
  if (focused) part.querySelector(`a[href="${focused}"]`)?.focus();
};
addEventListener("pagehide", () => events.close());
