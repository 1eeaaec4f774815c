/**
 * Elements out of text alone: what a peer wrote can be no markup, and steers no line of text.
 *
 * A panel describes all of itself anew after each change, and `show` changes only what differs: so
 * the focus, what is selected, and how far a table was scrolled stay as they are.
 */

const HANDLERS = ["onclick", "onsubmit", "onchange", "oninput"];
// Only the picture of a daemon of ours goes through it: the policy of the page allows no other.
const policy = globalThis.trustedTypes?.createPolicy("cromford", {
  createHTML(text) {
    if (!text.startsWith("<svg")) throw new TypeError("expected a picture, received something else");
    return text;
  },
});

/** Text without what is invisible or turns the direction of a line; as the command line prints it. */
export function clean(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}

/**
 * An element.
 * @param {string} tag Its name.
 * @param {Object} attributes A function is a handler; null and false stand for nothing.
 * @param {...*} children Elements, text, or lists of them; null and false stand for nothing.
 */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made[name] = value;
    else made.setAttribute(name, value === true ? "" : clean(value));
  }
  made.append(...nodes(children));
  return made;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(clean(child))));
}

/** Let a place show these, changing only what differs. */
export function show(place, ...children) {
  patch(place, nodes(children));
}

function patch(place, fresh) {
  const before = [...place.childNodes];
  fresh.forEach((node, index) => {
    const was = before[index];
    if (was === undefined) place.append(node);
    else if (!isAlike(was, node)) was.replaceWith(node);
    else if (was.nodeType === Node.TEXT_NODE) {
      if (was.data !== node.data) was.data = node.data;
    } else patchElement(was, node);
  });
  for (const left of before.slice(fresh.length)) left.remove();
}

function isAlike(was, node) {
  return was.nodeName === node.nodeName && was.dataset?.key === node.dataset?.key;
}

function patchElement(was, node) {
  const keepsOpen = was.nodeName === "DETAILS"; // Whoever opened it decides.
  for (const { name } of [...was.attributes]) {
    if (!node.hasAttribute(name) && !(keepsOpen && name === "open")) was.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (was.getAttribute(name) !== value && !(keepsOpen && name === "open")) {
      was.setAttribute(name, value);
    }
  }
  for (const handler of HANDLERS) was[handler] = node[handler];
  // What is in it is drawn by somebody else: a clock, a picture.
  if (!("own" in was.dataset)) patch(was, [...node.childNodes]);
}

/** Let a place show a picture, or none; nothing happens where it is the one that is there. */
export function showPicture(place, svg) {
  if (place.pictured === svg) return;
  place.pictured = svg;
  if (!svg) {
    place.replaceChildren();
    return;
  }
  const trusted = policy ? policy.createHTML(svg) : svg;
  const drawn = new DOMParser().parseFromString(trusted, "image/svg+xml").documentElement;
  if (drawn.nodeName !== "svg") throw new TypeError("the picture cannot be read");
  place.replaceChildren(document.importNode(drawn, true));
}

/** The element of an id. */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** Tell whoever listens to the page instead of looking at it. */
export function announce(text) {
  byId("news").textContent = clean(text);
}
