"use strict";

// A film: one picture of several is shown; a slider chooses it, a button or the space bar plays them all.
for (const film of document.querySelectorAll(".film")) {
  const frames = [...film.querySelectorAll("img")], controls = film.querySelector(".controls");
  if (!controls) continue;
  const [button, slider, label] = ["button", "input", "output"].map(name => controls.querySelector(name));
  const last = frames.length - 1;
  let timer = 0;
  const show = index => {
    frames.forEach((frame, number) => { frame.hidden = number !== index; });
    slider.value = index;
    label.textContent = frames[index].dataset.label;
    slider.setAttribute("aria-valuetext", label.textContent);
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const next = () => { if (+slider.value >= last) stop(); else show(+slider.value + 1); };
  const toggle = () => {
    if (timer) return stop();
    show(+slider.value >= last ? 0 : +slider.value);
    timer = setInterval(next, 500);
    button.textContent = "Pause";
  };
  slider.oninput = () => { stop(); show(+slider.value); };
  slider.onkeydown = event => { if (event.key === " ") { event.preventDefault(); toggle(); } };
  button.onclick = toggle;
  controls.hidden = false;
  show(last);
}

// A list whose items carry a number, in the order that a select asks for.
for (const viewer of document.querySelectorAll(".sorted")) {
  const controls = viewer.querySelector(".controls"), select = controls.querySelector("select");
  const list = viewer.querySelector(".triples");
  const sort = () => {
    const sign = select.value === "worst" ? 1 : -1;
    list.append(...[...list.children].sort((a, b) => sign * (a.dataset.psnr - b.dataset.psnr)));
  };
  select.onchange = sort;
  controls.hidden = false;
  sort();
}
