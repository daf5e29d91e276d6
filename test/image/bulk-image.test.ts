/** Images that are laid out at once: sound by an independent count, whatever is in them. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BulkImage, type PlacedTable } from '../../src/image/qcow2/bulk-image.ts';
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { assertSound } from './sound.ts';

const test = suite('bulk image');

function randomCreate(next: Random): Qcow2CreateOptions {
  const extendedL2 = next.oneIn(4);
  const clusterSize = 2 ** (extendedL2 ? 14 + next.below(2) : 9 + next.below(5));
  return {
    size: clusterSize * (1 + next.below(next.pick([5, 300, 3000]))) - next.pick([0, 512]),
    clusterSize,
    extendedL2,
    refcountBits: next.pick([1, 2, 4, 8, 16, 32, 64]),
  };
}

/** Units in guest order: plain, compressed and zero clusters. */
function randomUnits(next: Random, { size, clusterSize = 0 }: Qcow2CreateOptions): number[][] {
  const clusters = Math.ceil(size / clusterSize);
  const density = next.pick([1, 2, 10]);
  const compressed = next.pick([0, 1, 3, 100]);
  const units: number[][] = [];
  for (let cluster = 0; cluster < clusters; cluster++) {
    if (!next.oneIn(density)) continue;
    let state = next.oneIn(20) ? 0 : -1;
    if (compressed > 0 && state < 0 && !next.oneIn(compressed + 1)) {
      state = 1 + next.below(next.pick([20, clusterSize - 1, clusterSize]));
    }
    units.push([cluster, state, 0xffff_ffff]);
  }
  return units;
}

interface Job {
  readonly units: Float64Array;
  /** Guest offset up to which all clusters are in this job or an earlier one. */
  readonly until: number;
}

/** Cuts units into jobs. Those of a window may come in any order: what is copied goes first. */
function jobsOf(next: Random, units: readonly number[][], clusterSize: number): Job[] {
  const jobs: Job[] = [];
  for (let at = 0; at < units.length; ) {
    const end = Math.min(units.length, at + 1 + next.below(next.pick([3, 100, 1000])));
    const cut = units.slice(at, end);
    const window = next.oneIn(2) ? cut : someOf(cut, cut.length, next);
    const start = (units[at]![0] ?? 0) * clusterSize;
    const stop = ((units[end - 1]![0] ?? 0) + 1) * clusterSize;
    for (let from = 0; from < window.length; ) {
      const to = Math.min(window.length, from + next.below(next.pick([3, 100])));
      const until = to === window.length ? stop : start;
      jobs.push({ units: Float64Array.from(window.slice(from, to).flat()), until });
      from = to;
    }
    at = end;
  }
  return jobs;
}

type Piece = Pick<PlacedTable, 'host' | 'bytes'>;

/** The pieces that a job writes: clusters of a letter each, and complete tables. */
function piecesOf(bulk: BulkImage, { units, until }: Job) {
  const placement = bulk.place(units, until);
  const pieces: Piece[] = [...placement.tables];
  for (let unit = 0; unit < placement.hosts.length; unit++) {
    const state = units[unit * 3 + 1]!;
    if (state === 0) continue;
    const length = state > 0 ? state : bulk.geometry.clusterSize;
    pieces.push({ host: placement.hosts[unit]!, bytes: new Uint8Array(length).fill(65) });
  }
  return { ...placement, pieces: pieces.sort((a, b) => a.host - b.host) };
}

test('a file', () => {
  for (let round = 0; round < 60; round++) {
    const next = rng(SEED + round);
    const create = randomCreate(next);
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    const bulk = new BulkImage(create, { order: 'file' });
    const file = memoryStorage();
    const taken = new Set<number>();
    const write = ({ host, bytes }: Piece) => {
      assert.not(taken.has(host), `${about}: ${host} is written twice`);
      taken.add(host);
      file.write(host, bytes);
    };
    for (const job of jobsOf(next, randomUnits(next, create), bulk.geometry.clusterSize)) {
      for (const piece of piecesOf(bulk, job).pieces) write(piece);
    }
    for (const table of bulk.end().tables) write(table);
    const { tables, header } = bulk.frontParts();
    for (const table of tables) write(table);
    write(header);
    assertSound(file.snapshot(), about);
  }
});

test('a stream, each byte once and in order', () => {
  for (let round = 0; round < 60; round++) {
    const next = rng(SEED + round);
    const create = randomCreate(next);
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    const units = randomUnits(next, create);
    const clustersMax = units.length + next.below(100);
    const first = new BulkImage(create, { order: 'stream', clustersMax });
    const jobs = jobsOf(next, units, first.geometry.clusterSize);
    for (const { units, until } of jobs) first.place(units, until);
    first.end();
    const front = first.outcome;
    const second = new BulkImage(create, { order: 'stream', clustersMax, front });
    const file = memoryStorage();
    let at = 0;
    const write = ({ host, bytes }: Piece) => {
      assert.ok(host >= at, `${about}: goes back to ${host} from ${at}`);
      file.write(host, bytes);
      at = host + bytes.length;
    };
    const within = (from: number, to: number, what: string) => {
      assert.ok(at <= from || at <= to, `${about} ${what}`);
    };
    const { tables, header } = second.frontParts();
    for (const piece of [header, ...tables].sort((a, b) => a.host - b.host)) write(piece);
    within(0, second.frontBytes, 'front');
    for (const job of jobs) {
      const { pieces, from, to } = piecesOf(second, job);
      for (const piece of pieces) {
        assert.ok(piece.host >= from, `${about}: ${piece.host} before ${from}`);
        write(piece);
      }
      within(from, to, 'job');
    }
    for (const piece of [...second.end().tables].sort((a, b) => a.host - b.host)) write(piece);
    assert.equal(second.outcome, front, about);
    assert.is(second.fileBytes, first.fileBytes);
    const bytes = new Uint8Array(second.fileBytes);
    bytes.set(file.snapshot());
    assertSound(bytes, about);
  }
});

test.run();
