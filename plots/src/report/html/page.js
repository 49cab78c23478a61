'use strict';
(function () {
  const rows = Array.from(document.querySelectorAll('#matrix tbody tr'));
  const body = document.querySelector('#matrix tbody');
  const shown = document.getElementById('shown');
  const text = document.getElementById('filter-text');
  const selects = Array.from(document.querySelectorAll('select[data-column]'));
  for (const part of document.querySelectorAll('.scripted')) part.hidden = false;

  // Filter: every word of the text in the row, and each chosen value in its column.
  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      const fits = words.every(word => content.includes(word)) && selects.every(select =>
        !select.value || row.cells[Number(select.dataset.column)].textContent.trim() === select.value);
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = count + ' of ' + rows.length + ' rows';
  }
  text.addEventListener('input', filter);
  for (const select of selects) {
    const column = Number(select.dataset.column);
    const values = new Set(rows.map(row => row.cells[column].textContent.trim()));
    for (const value of Array.from(values).sort((a, b) => a.localeCompare(b, 'en', { numeric: true })))
      select.add(new Option(value, value));
    select.addEventListener('change', filter);
  }
  document.getElementById('filter-clear').addEventListener('click', () => {
    text.value = '';
    for (const select of selects) select.value = '';
    filter();
  });
  filter();

  // Sort: by the number in data-v where there is one, else by the text.
  const key = cell => cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  document.querySelectorAll('#matrix th button').forEach((button, column) => {
    button.addEventListener('click', () => {
      const head = button.parentElement;
      const rising = head.getAttribute('aria-sort') !== 'ascending';
      for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
      const empty = row => row.cells[column].textContent.trim() === '-';
      rows.sort((a, b) => {
        if (empty(a) !== empty(b)) return empty(a) ? 1 : -1;
        const x = key(a.cells[column]), y = key(b.cells[column]);
        const order = typeof x === 'number' && typeof y === 'number' ? x - y
          : String(x).localeCompare(String(y), 'en', { numeric: true });
        return rising ? order : -order;
      });
      body.append(...rows);
    });
  });

  // Any row against any other. Rows of one run share their rounds: the ratio is taken within each.
  // Estimate and interval are those of the signed-rank test, as in the tables, for this pair alone.
  const data = JSON.parse(document.getElementById('data').textContent);
  const pickA = document.getElementById('pair-a'), pickB = document.getElementById('pair-b');
  const outcome = document.getElementById('outcome');
  data.forEach((row, index) => {
    pickA.add(new Option(row.name, index));
    pickB.add(new Option(row.name, index));
  });
  const median = sorted => sorted.length % 2 ? sorted[(sorted.length - 1) / 2]
    : (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2;
  // Averages of all pairs, in rising order: their median is the estimate.
  function averages(values) {
    const all = [];
    values.forEach((one, i) => { for (let j = i; j < values.length; j += 1) all.push((one + values[j]) / 2); });
    return all.sort((x, y) => x - y);
  }
  // Largest k with P(rank sum < k) <= 2.5 % if signs are coins: so many averages are left out at each end.
  function bound(n) {
    let law = [1];
    for (let rank = 1; rank <= n; rank += 1) {
      const next = new Array(law.length + rank).fill(0);
      law.forEach((share, sum) => { next[sum] += share / 2; next[sum + rank] += share / 2; });
      law = next;
    }
    let sum = 0, k = 0;
    while (k < law.length && sum + law[k] <= 0.025) { sum += law[k]; k += 1; }
    return k;
  }
  const digits = value => value >= 100 ? value.toFixed(0) : value.toPrecision(3);
  function compare() {
    const a = data[pickA.value], b = data[pickB.value];
    if (!a || !b) return;
    const ofB = new Map(b.rounds);
    const logs = a.rounds.filter(([round, value]) => value > 0 && ofB.get(round) > 0)
      .map(([round, value]) => Math.log(value / ofB.get(round))).slice(-200);
    let words;
    if (a === b) words = 'The same row twice.';
    else if (a.host === b.host && a.source === b.source && logs.length > 0) {
      const k = bound(logs.length), all = averages(logs);
      const interval = k > 0
        ? ', 95 % interval ' + digits(Math.exp(all[k - 1])) + ' to ' + digits(Math.exp(all[all.length - k]))
        : ', too few rounds for an interval';
      words = a.name + ' has ' + digits(Math.exp(median(all))) + 'x the goodput of ' + b.name +
        interval + ' (' + logs.length + ' rounds in which both count, not corrected for the number of ' +
        'comparisons you make).';
    } else if (a.goodput > 0 && b.goodput > 0) {
      words = a.name + ' has ' + digits(a.goodput / b.goodput) + 'x the goodput of ' + b.name +
        ' by their medians; they were not measured in the same rounds, so there is no interval.';
    } else words = 'One of the two has no goodput.';
    const failed = row => row.failed > 0 ? ' ' + row.name + ' failed in ' +
      digits(row.failed * 100) + ' % of its attempts.' : '';
    outcome.textContent = words + failed(a) + (a === b ? '' : failed(b));
  }
  pickA.addEventListener('change', compare);
  pickB.addEventListener('change', compare);
  if (data.length > 1) pickA.selectedIndex = 1;
  compare();

  // The value of a mark, where the pointer or the keyboard is. A chart is one stop of the tab key;
  // arrows go from mark to mark within it. Without script a mark's title shows the same.
  const tip = document.getElementById('tip');
  let current = null;
  function show(mark, others) {
    tip.textContent = [mark, ...others].map(each => each.getAttribute('aria-label')).join('\n');
    tip.hidden = false;
    current = mark;
    place();
  }
  function place() {
    const at = current.getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    tip.style.left = Math.max(4, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 4)) + 'px';
    const above = at.top - tip.offsetHeight - 6;
    tip.style.top = (above >= 0 ? above : at.bottom + 6) + 'px';
  }
  const hide = () => { tip.hidden = true; };
  addEventListener('scroll', () => { if (!tip.hidden) place(); }, { passive: true, capture: true });
  // Where lines meet, marks lie on each other: all of them are meant.
  const below = (mark, event) => document.elementsFromPoint(event.clientX, event.clientY)
    .filter(each => each !== mark && each.classList.contains('hover'));
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  for (const svg of document.querySelectorAll('figure svg')) {
    const marks = Array.from(svg.querySelectorAll('.hover'));
    if (!marks.length) continue;
    svg.setAttribute('role', 'group');
    marks.forEach((mark, index) => {
      mark.querySelector('title').remove();
      mark.setAttribute('role', 'img');
      mark.setAttribute('tabindex', index ? -1 : 0);
      mark.addEventListener('pointerenter', event => show(mark, below(mark, event)));
      mark.addEventListener('pointerleave', hide);
      mark.addEventListener('focus', () => show(mark, []));
      mark.addEventListener('blur', hide);
      mark.addEventListener('keydown', event => {
        if (event.key === 'Escape') hide();
        if (!(event.key in steps)) return;
        event.preventDefault();
        const next = marks[(index + steps[event.key] + marks.length) % marks.length];
        mark.setAttribute('tabindex', -1);
        next.setAttribute('tabindex', 0);
        next.focus();
      });
    });
  }
})();
