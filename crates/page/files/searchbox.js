// The search box, what it understood, and the terms that narrow the list.

import { counted, exact, number } from './format.js';
import { change, removeTerm, state, terms } from './state.js';
import { term } from './search.js';
import { button, byId, el } from './ui.js';

export function searchBox(form, app) {
  const box = el('input', { id: 'q', type: 'search', autocomplete: 'off', spellcheck: 'false', placeholder: 'Address, port, name, or tcpdump expression',
    'aria-label': 'Search sessions', 'aria-describedby': 'understood' });
  const understood = el('p', { id: 'understood', role: 'status' });
  const chips = el('ul', { id: 'terms', 'aria-label': 'Narrowed to' });
  const sort = el('select', { id: 'sort', 'aria-label': 'Order' }, ...[['', 'Newest first'], ['start', 'Oldest first'], ['last', 'Latest packet'],
    ['bytes', 'Most bytes'], ['packets', 'Most packets'], ['duration', 'Longest']].map(([value, text]) => el('option', { value }, text)));
  form.append(box, el('button', { type: 'submit' }, 'Search'), sort, chips, understood);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    change({ q: box.value.trim() });
    if (box.value.trim() === state.q) byId('grid')?.focus();
  });
  box.addEventListener('search', () => { if (!box.value) change({ q: '' }); });
  sort.addEventListener('change', () => change({ sort: sort.value }));
  addEventListener('keydown', (event) => {
    if (event.key === '/' && !(event.target instanceof Element && /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName))) { box.focus(); event.preventDefault(); }
  });

  function chip(key, text) {
    const words = term(text)?.words || text;
    return el('li', {}, button(`${key === 'not' ? 'not ' : ''}${words} ×`, () => removeTerm(key, text), { 'aria-label': `Remove ${key === 'not' ? 'not ' : ''}${words}` }));
  }

  function show(asking) {
    if (document.activeElement !== box) box.value = state.q;
    sort.value = state.sort;
    chips.replaceChildren(...terms('only').map((text) => chip('only', text)), ...terms('not').map((text) => chip('not', text)));
    const as = app.understood.kind === 'none' ? '' : `Understood as ${app.understood.words}. `;
    const count = `${number(app.rows.length)} of ${counted(app.store.count, 'session')}`;
    const problem = app.error ? ` ${app.error}` : app.rows.length === 0 && app.note ? ` ${app.note}` : '';
    understood.textContent = asking ? `${as}Asking the recorder …` : `${as}${count}.${problem}`;
    understood.title = `${exact(app.rows.length)} of ${exact(app.store.count)}`;
    understood.className = app.error ? 'bad' : '';
  }
  return { show };
}
