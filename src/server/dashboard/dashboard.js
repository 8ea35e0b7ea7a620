'use strict';
// The dashboard: asks for /api/overview every second, keeps the last three minutes, and draws them.
// What the server says is put into the page as text, never as markup: topics have whatever names clients gave them.
(() => {
  const PERIOD = 1000;
  const KEPT = 180;
  // A line that has just begun takes as much room as one of half a minute.
  const SHOWN_MIN = 30;
  const SVG = 'http://www.w3.org/2000/svg';

  const live = document.getElementById('live');
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // Numbers for people. None is a dash, which is another thing than zero.
  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  const scaled = (value, step, units) => {
    let place = 0;
    while (Math.abs(value) >= step && place < units.length - 1) {
      value /= step;
      place += 1;
    }
    const digits = place === 0 || Math.abs(value) >= 100 ? 0 : 1;
    return [value.toLocaleString('en', { maximumFractionDigits: digits, useGrouping: false }), units[place]];
  };
  const units = {
    count: (value) => [Math.round(value).toLocaleString('en').replaceAll(',', '\u202f'), ''],
    rate: (value) => {
      const [number, prefix] = value < 100 ? [value.toLocaleString('en', { maximumFractionDigits: 1 }), '']
        : scaled(value, 1000, ['', 'k', 'M', 'G']);
      return [number, `${prefix}/s`];
    },
    bytes: (value) => scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']),
    byteRate: (value) => {
      const [number, unit] = units.bytes(value);
      return [number, `${unit}/s`];
    },
    time: (value) => {
      if (value >= 1) return [value.toFixed(2), 's'];
      if (value >= 0.001) return [(value * 1e3).toFixed(value < 0.01 ? 2 : 1), 'ms'];
      return [(value * 1e6).toFixed(0), 'µs'];
    },
    percent: (value) => [value.toFixed(1), '%'],
  };
  const say = (value, unit) => (known(value) ? units[unit](value).join('\u00a0').trim() : '–');

  // The value that a share of what came between two looks does not exceed, guessed inside of its bucket.
  function quantile(now, before, share) {
    const counts = now.counts.map((count, place) => Math.max(0, count - before.counts[place]));
    const rank = counts.reduce((sum, count) => sum + count, 0) * share;
    if (rank === 0) return null;
    let below = 0;
    let low = 0;
    for (const [place, bound] of now.bounds.entries()) {
      if (counts[place] > 0 && below + counts[place] >= rank) return low + (bound - low) * ((rank - below) / counts[place]);
      below += counts[place];
      low = bound;
    }
    return low;
  }

  const total = (look, name) => look.shards.reduce((sum, shard) => sum + shard[name], 0);

  // A card: a number, what belongs to it, and a line of the last minutes; two where two things belong together.
  class Card {
    constructor(id, title, unit, names) {
      this.unit = unit;
      this.series = names.map(() => []);
      this.big = make('div', { class: 'big' }, '–');
      this.under = make('div', { class: 'under' });
      this.svg = draw('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', role: 'img' });
      this.area = draw('polygon', { class: 'area' });
      this.cursor = draw('line', { class: 'cursor', x1: 0, x2: 0, y1: 0, y2: 100, visibility: 'hidden' });
      this.svg.append(draw('rect', { class: 'ground', width: 100, height: 100 }), this.area, draw('line', { class: 'base', x1: 0, x2: 100, y1: 100, y2: 100 }), this.cursor);
      this.lines = names.map((name, place) => {
        const line = draw('polyline', { class: place === 1 ? 'second' : 'first' });
        this.svg.append(line);
        return line;
      });
      this.most = make('span');
      this.since = make('span');
      const keys = names.length > 1
        ? names.map((name, place) => make('span', { class: place === 1 ? 'key second' : 'key' }, name)) : [];
      const card = make('section', { class: 'card', id }, make('h2', {}, title), this.big, this.under, this.svg,
        make('div', { class: 'scale' }, this.since, ...keys, this.most));
      this.title = title;
      this.pointed = null;
      this.svg.addEventListener('pointermove', (event) => {
        const box = this.svg.getBoundingClientRect();
        this.pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
        this.point();
      });
      this.svg.addEventListener('pointerleave', () => {
        this.pointed = null;
        this.point();
      });
      live.append(card);
    }

    // How many values the width of the picture stands for.
    get shown() {
      return Math.max(SHOWN_MIN, this.series[0].length);
    }

    // Tells the value under the pointer, or else the largest.
    point() {
      const kept = this.series[0].length;
      const ago = this.pointed === null ? kept : Math.round((1 - this.pointed) * (this.shown - 1));
      const value = ago < kept ? this.series[0][kept - 1 - ago] : null;
      if (known(value)) {
        const x = (1 - ago / (this.shown - 1)) * 100;
        for (const end of ['x1', 'x2']) this.cursor.setAttribute(end, x);
        this.most.textContent = `${say(value, this.unit)}, ${ago * PERIOD / 1000} s ago`;
      } else {
        this.most.textContent = `most ${say(this.peak, this.unit)}`;
      }
      this.cursor.setAttribute('visibility', known(value) ? 'visible' : 'hidden');
    }

    // `isBad`: what stands below the number should be looked at.
    add(values, under, isBad = false) {
      for (const [place, series] of this.series.entries()) {
        series.push(known(values[place]) ? values[place] : null);
        if (series.length > KEPT) series.shift();
      }
      const [number, unit] = known(values[0]) ? units[this.unit](values[0]) : ['–', ''];
      this.big.replaceChildren(number, make('small', {}, unit === '' ? '' : ` ${unit}`));
      this.under.textContent = under;
      this.under.classList.toggle('bad', isBad);
      const most = Math.max(...this.series.flat().filter(known), 0);
      for (const [place, series] of this.series.entries()) {
        const shown = this.shown;
        const first = shown - series.length;
        const points = series.map((value, at) => [((first + at) / (shown - 1)) * 100, value])
          .filter(([, value]) => value !== null)
          .map(([x, value]) => `${x.toFixed(2)},${(100 - (most > 0 ? value / most : 0) * 96).toFixed(2)}`);
        this.lines[place].setAttribute('points', points.join(' '));
        if (place === 0 && points.length > 0) {
          const [begin, end] = [points[0].split(',')[0], points.at(-1).split(',')[0]];
          this.area.setAttribute('points', [`${begin},100`, ...points, `${end},100`].join(' '));
        }
      }
      const span = this.shown * PERIOD / 1000;
      this.since.textContent = span < 120 ? `${span} s` : `${Math.round(span / 60)} min`;
      this.peak = most;
      this.point();
      this.svg.setAttribute('aria-label', `${this.title}: now ${say(values[0], this.unit)}, most ${say(most, this.unit)}`);
    }
  }

  const aside = make('div', { class: 'tables' });

  // A table whose rows are told anew each time.
  class Table {
    constructor(id, title, heads, wide, nothing) {
      this.body = make('tbody');
      this.none = make('p', { class: 'none' }, nothing);
      this.table = make('table', {}, make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', {}, head)))), this.body);
      (wide === 'wide' ? live : aside).append(make('section', { class: `card ${wide}`, id }, make('h2', {}, title), this.table, this.none));
    }

    // Each row has its name, then its cells. `shares`, 0 to 1: how long a bar lies behind each of them.
    show(rows, shares = []) {
      this.body.replaceChildren(...rows.map(([name, ...cells], place) => {
        const row = make('tr', {}, make('th', { title: name }, name), ...cells.map((cell) => make('td', {}, cell)));
        if (known(shares[place])) row.style.setProperty('--share', `${(shares[place] * 100).toFixed(1)}%`);
        return row;
      }));
      this.table.hidden = rows.length === 0;
      this.none.hidden = rows.length > 0;
    }
  }

  const cards = {
    connections: new Card('connections', 'Connections', 'count', ['now']),
    accepts: new Card('accepts', 'Accepted', 'rate', ['accepted', 'refused']),
    received: new Card('received', 'Messages in', 'rate', ['in']),
    deliveries: new Card('deliveries', 'Deliveries', 'rate', ['delivered', 'dropped']),
    delivery: new Card('delivery', 'Publish to last delivery, p99', 'time', ['p99', 'p50']),
    fanout: new Card('fanout', 'Fan-out, p99', 'time', ['p99', 'p50']),
    turn: new Card('turn', 'Turn of a shard, p99', 'time', ['p99', 'p50']),
    handshake: new Card('handshake', 'Handshake, p99', 'time', ['p99', 'p50']),
    bytes: new Card('bytes', 'Bytes out', 'byteRate', ['out', 'in']),
    memory: new Card('memory', 'Memory of the process', 'bytes', ['resident']),
    queued: new Card('queued', 'Waiting in outgoing queues', 'bytes', ['queued']),
    cpu: new Card('cpu', 'Processor', 'percent', ['used']),
  };
  const tables = {
    shards: new Table('shards', 'Shards', ['shard', 'connections', 'subscriptions', 'messages in', 'publications',
      'deliveries', 'bytes out', 'queued', 'busy', 'mean turn', 'longest turn'], 'wide', ''),
    protocols: new Table('protocols', 'Protocols', ['protocol', 'now', 'opened', 'messages in', 'messages out'], 'half',
      'Nobody is connected.'),
    busy: new Table('busy', 'Topics with the most publications', ['topic', 'publications', 'subscribers'], 'half',
      'Nothing has been published lately.'),
    crowded: new Table('crowded', 'Topics with the most subscribers', ['topic', 'subscribers', 'publications'], 'half',
      'Nobody subscribes to anything.'),
    slow: new Table('slow', 'Slow consumers', ['connection', 'protocol', 'who', 'queued', ''], 'half',
      'Nobody has more than 4 KiB waiting, nor was ended for it in the last minute.'),
    limits: new Table('limits', 'Limits that struck', ['limit', 'now', 'since the start'], 'half', 'None has struck.'),
    closed: new Table('closed', 'Connections ended', ['reason', 'now', 'since the start'], 'half', 'None has ended.'),
    purposes: new Table('purposes', 'Memory by purpose', ['purpose', 'bytes'], 'half', ''),
  };

  live.append(aside);

  function show(now, before) {
    const seconds = Math.max(0.001, now.uptime_seconds - before.uptime_seconds);
    const rate = (name) => Math.max(0, total(now, name) - total(before, name)) / seconds;
    const spread = (name, share) => quantile(now.histograms[name], before.histograms[name], share);
    const phase = document.getElementById('phase');
    phase.textContent = now.phase;
    phase.className = now.phase;
    const degraded = document.getElementById('degraded');
    degraded.hidden = !now.degraded;
    degraded.textContent = now.degraded ? `Degraded: ${now.degraded}` : '';
    const up = Math.floor(now.uptime_seconds);
    const two = (number) => String(number).padStart(2, '0');
    document.title = `${say(total(now, 'connections'), 'count')} connected – Holdline`;
    document.getElementById('uptime').textContent = `${Math.floor(up / 3600)}:${two(Math.floor(up / 60) % 60)}:${two(up % 60)}`;

    const connections = total(now, 'connections');
    const each = connections > 0 && known(now.process.resident_bytes) ? now.process.resident_bytes / connections : null;
    cards.connections.add([connections],
      `${say(total(now, 'subscriptions'), 'count')} subscriptions to ${say(total(now, 'topics'), 'count')} topics`);
    cards.accepts.add([rate('accepted'), rate('refused')], `refused ${say(rate('refused'), 'rate')}`,
      rate('refused') > 0);
    cards.received.add([rate('received')], `publications ${say(rate('publications'), 'rate')}`);
    cards.deliveries.add([rate('deliveries'), rate('dropped')], `dropped ${say(rate('dropped'), 'rate')}`,
      rate('dropped') > 0);
    cards.bytes.add([rate('bytes_out'), rate('bytes_in')], `in ${say(rate('bytes_in'), 'byteRate')}`);
    for (const name of ['delivery', 'fanout', 'turn', 'handshake']) {
      const [half, most] = [spread(name, 0.5), spread(name, 0.99)];
      cards[name].add([most, half], known(most) ? `p50 ${say(half, 'time')}` : 'none in the last second');
    }
    cards.memory.add([now.process.resident_bytes], known(each) ? `${say(each, 'bytes')} for each connection` : '');
    cards.queued.add([total(now, 'queued_bytes')], `${say(total(now, 'queued_connections'), 'count')} connections wait`);
    const cpu = (now.process.cpu_seconds - before.process.cpu_seconds) / seconds * 100;
    cards.cpu.add([known(now.process.cpu_seconds) ? cpu : null], 'of one core, all threads');

    tables.shards.show(now.shards.map((shard, number) => {
      const old = before.shards[number] ?? shard;
      const each = (name) => Math.max(0, shard[name] - old[name]) / seconds;
      const turns = shard.turns - old.turns;
      return [`shard ${number}`, say(shard.connections, 'count'), say(shard.subscriptions, 'count'),
        say(each('received'), 'rate'), say(each('publications'), 'rate'), say(each('deliveries'), 'rate'),
        say(each('bytes_out'), 'byteRate'), say(shard.queued_bytes, 'bytes'),
        say(Math.min(100, each('turn_nanos') / 1e7), 'percent'),
        turns > 0 ? say((shard.turn_nanos - old.turn_nanos) / turns / 1e9, 'time') : '–',
        say(shard.turn_nanos_max / 1e9, 'time')];
    }));
    const old = new Map(before.protocols.map((protocol) => [protocol.name, protocol]));
    tables.protocols.show(now.protocols.filter((protocol) => protocol.opened > 0).map((protocol) => {
      const each = (name) => Math.max(0, protocol[name] - old.get(protocol.name)[name]) / seconds;
      return [protocol.name, say(protocol.connections, 'count'), say(protocol.opened, 'count'),
        say(each('received'), 'rate'), say(each('sent'), 'rate')];
    }));
    const topic = (one) => [say(one.publications, 'rate'), say(one.subscribers, 'count')];
    const shares = (numbers) => numbers.map((number) => number / Math.max(...numbers));
    tables.busy.show(now.topics.busy.map((one) => [one.name, ...topic(one)]),
      shares(now.topics.busy.map((one) => one.publications)));
    tables.crowded.show(now.topics.crowded.map((one) => [one.name, ...topic(one).reverse()]),
      shares(now.topics.crowded.map((one) => one.subscribers)));
    const consumer = (one, state) => [one.id, one.protocol, [one.user, one.address].filter((part) => part !== null).join(', ') || '–',
      say(one.queued_bytes, 'bytes'), state];
    tables.slow.show([...now.slow.map((one) => consumer(one, 'waits')),
      ...now.slow_ended.map((one) => consumer(one, `ended ${Math.round(one.ended_seconds)} s ago`))]);
    for (const name of ['limits', 'closed']) {
      tables[name].show(Object.entries(now[name]).sort((one, other) => other[1] - one[1]).map(([reason, count]) =>
        [reason, say((count - (before[name][reason] ?? 0)) / seconds, 'rate'), say(count, 'count')]));
    }
    const purposes = Object.entries(now.memory);
    const rest = (now.process.resident_bytes ?? 0) - purposes.reduce((sum, [, bytes]) => sum + bytes, 0);
    if (rest > 0) purposes.push(['all else', rest]);
    purposes.sort((one, other) => other[1] - one[1]);
    tables.purposes.show(purposes.map(([purpose, bytes]) => [purpose, say(bytes, 'bytes')]),
      shares(purposes.map(([, bytes]) => bytes)));
  }

  let before = null;
  async function look() {
    try {
      const answer = await fetch('/api/overview', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      // The key that the browser shows is none any more, or no operator's: it asks for another one.
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const now = await answer.json();
      // A server that has been started anew counts from zero.
      if (before !== null && now.uptime_seconds >= before.uptime_seconds) {
        show(now, before);
        live.hidden = false;
        document.getElementById('plain').hidden = true;
      }
      before = now;
      document.getElementById('stale').hidden = true;
    } catch {
      document.getElementById('stale').hidden = false;
    }
    setTimeout(look, PERIOD);
  }
  look();
})();
