// Looks again while the page is seen: what is marked data-live is fetched anew, and put in the place of what differs.
// Without this script a page says the same, and stays as it is.
const { every, now } = document.body.dataset;
const ahead = now ? Date.now() - Number(now) : 0; // of the database's clock
const fresh = document.getElementById("fresh"), hold = document.getElementById("hold");
let etag = "", held = false, timer = 0, failed = 0, pace = Number(every), sent = false;

const later = () => { clearTimeout(timer); if (!held && !document.hidden && document.querySelector("[data-live]")) timer = setTimeout(look, pace * Math.min(2 ** failed, 16)); };
const go = () => { clearTimeout(timer); if (!held && !document.hidden) look(); };

async function look() {
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1", "If-None-Match": etag } });
    const html = await answer.text();
    if (held) return; // since that was asked
    pace = Number(answer.headers.get("X-Pace")) || pace;
    if (answer.status === 200) { put(html); etag = answer.headers.get("ETag") || ""; }
    failed = answer.ok || answer.status === 304 ? 0 : failed + 1;
    say(failed ? `The server answers ${answer.status}: what is shown may be old.` : "");
  } catch {
    failed++;
    say("The server cannot be reached: what is shown is old.");
  }
  ages();
  later();
}

function say(problem) {
  const at = new Date(Date.now() - ahead).toISOString().slice(11, 19);
  fresh.textContent = problem || `As of ${at}Z`;
  fresh.classList.toggle("bad", Boolean(problem));
  problem ? fresh.setAttribute("role", "alert") : fresh.removeAttribute("role"); // an hour is not read aloud each second
}

function put(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const old of document.querySelectorAll("[data-live]")) { // what comes in its place may be the last: a job has ended
    const next = page.getElementById(old.id);
    if (next && !old.isEqualNode(next) && !inUse(old)) replace(old, next);
  }
}

// Somebody types there, has ticked something, or copies from it.
function inUse(region) {
  const focused = document.activeElement, selected = getSelection();
  return region.contains(focused) && focused.matches("input, select, textarea, button")
    || !selected.isCollapsed && selected.containsNode(region, true)
    || [...region.querySelectorAll("input, textarea")].some(e => e.checked !== e.defaultChecked || e.value !== e.defaultValue);
}

// Focus, what is unfolded, and how far it is scrolled stay as they are.
function replace(old, next) {
  const all = (region, selector) => [...region.querySelectorAll(selector)];
  all(old, "details").forEach((one, i, _, other = all(next, "details")[i]) => { if (other) other.open = one.open; });
  const focused = all(old, "a, summary, [tabindex]").indexOf(document.activeElement), link = document.activeElement.getAttribute("href");
  const scrolled = all(old, ".scroll, pre").map(box => [box.scrollLeft, box.scrollTop]);
  old.replaceWith(next);
  all(next, ".scroll, pre").forEach((box, i) => scrolled[i] && box.scrollTo(...scrolled[i]));
  if (focused >= 0) {
    const same = link === null ? all(next, "a, summary, [tabindex]")[focused] : next.querySelector(`[href="${CSS.escape(link)}"]`);
    same?.focus({ preventScroll: true });
  }
}

// As Python says them: see chancy.options.phrases.span.
function span(seconds) {
  for (const [unit, least, name] of [[86400, 172800, "d"], [3600, 6000, "h"], [60, 100, "min"]])
    if (seconds >= least) return `${Math.round(seconds / unit).toLocaleString("en")} ${name}`;
  return `${Math.max(Math.round(seconds), 0)} s`;
}

function ages() {
  for (const time of document.querySelectorAll("time")) {
    const at = new Date(time.dateTime), seconds = (Date.now() - ahead - at) / 1000;
    if ("since" in time.dataset) time.textContent = span(seconds);
    if ("age" in time.dataset) time.textContent = seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
    time.title = `${time.dateTime.slice(0, 19).replace("T", " ")}Z, here ${at.toLocaleString()}`;
  }
}

// The second click of two would make a second job. Who comes back may send again.
addEventListener("submit", event => { sent ? event.preventDefault() : sent = true; });
addEventListener("pageshow", () => { sent = false; });

ages();
if (document.querySelector("[data-live]")) {
  hold.hidden = false;
  hold.onclick = () => { held = !held; hold.setAttribute("aria-pressed", held); go(); };
  document.addEventListener("visibilitychange", go);
  later();
}
