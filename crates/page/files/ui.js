// Elements, made without a line of markup: text from the network is never more than text.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') node.className = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, '');
    else node.setAttribute(key, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function button(text, action, props = {}) {
  return el('button', { type: 'button', onclick: action, ...props }, text);
}

// Takes a file that is dropped on a zone, or chosen.
export function drops(zone, input, take) {
  input.addEventListener('change', () => {
    if (input.files[0]) take(input.files[0]);
    // The same file may be chosen again.
    input.value = '';
  });
  zone.addEventListener('dragover', (event) => { event.preventDefault(); zone.classList.add('over'); });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

// Tells a screen reader what has changed.
export function say(text) {
  byId('told').textContent = text;
}

// A row of tabs with the keys that people expect.
export function tabs(list, entries, choose) {
  const made = entries.map(([key, text]) =>
    button(text, () => choose(key), { role: 'tab', id: `tab-${key}`, 'aria-controls': key === 'sessions' ? 'list' : key }));
  list.replaceChildren(...made);
  list.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = made.indexOf(document.activeElement);
    const next = made[(at + step + made.length) % made.length];
    next.focus();
    next.click();
    event.preventDefault();
  });
  return (key) => {
    for (const tab of made) {
      const on = tab.id === `tab-${key}`;
      tab.setAttribute('aria-selected', on);
      tab.tabIndex = on ? 0 : -1;
    }
  };
}

// A panel of a tab that stands inside another part of the page.
// `chosen` hears of each choice.
export function panels(entries, first, chosen = (/** @type {string} */ _key) => {}) {
  const box = el('div', { class: 'panels' });
  const list = el('div', { role: 'tablist', class: 'tablist', 'aria-label': 'Views of this session' });
  const shown = new Set();
  const bodies = new Map();
  for (const [key, , make] of entries) {
    const body = el('div', { role: 'tabpanel', id: key, 'aria-labelledby': `tab-${key}`, tabindex: 0 });
    body.hidden = true;
    bodies.set(key, [body, make]);
  }
  const choose = (key) => {
    mark(key);
    chosen(key);
    for (const [name, [body, make]] of bodies) {
      body.hidden = name !== key;
      if (name === key && !shown.has(key)) {
        shown.add(key);
        make(body);
      }
    }
  };
  const mark = tabs(list, entries.map(([key, text]) => [key, text]), choose);
  box.append(list, ...[...bodies.values()].map(([body]) => body));
  choose(bodies.has(first) ? first : entries[0][0]);
  return box;
}

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el('a', { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
