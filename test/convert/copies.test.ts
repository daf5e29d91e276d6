/**
 * What is copied as it is: every cluster of the disks comes once, as a copy or in an operation, no
 * stream is cut short, and none is called complete before it has come.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyList } from '../../src/convert/copies.ts';
import { OP_STRIDE } from '../../src/convert/job.ts';
import { Planner } from '../../src/convert/plan.ts';
import { UnitState } from '../../src/convert/runner.ts';
import { type Disk, ExtentKind, ExtentList } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { randomTiny } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';

const test = suite('copies');

/** Streams as writers in parallel pack them: in any order within some, here and there apart. */
function randomStreams(next: Random, clusterSize: number) {
  const streams: { guest: number; host: number; length: number; stored: number }[] = [];
  const count = 1 + next.below(next.pick([3, 40, 600]));
  for (let index = 0; index < count; index++) {
    const length = 1 + next.below(clusterSize);
    streams.push({ guest: index * clusterSize, host: 0, length, stored: 0 });
  }
  let at = clusterSize + next.below(clusterSize);
  const mixed = next.pick([1, 16, count]);
  for (let from = 0; from < count; from += mixed) {
    for (const stream of someOf(streams.slice(from, from + mixed), mixed, next)) {
      if (next.oneIn(next.pick([2, 20]))) at += next.below(clusterSize);
      stream.host = at;
      at += stream.length;
      stream.stored = Math.ceil(at / 512) * 512 - stream.host;
    }
  }
  return { streams, fileEnd: at };
}

test('streams: as long as they are, in few ranges', () => {
  for (let round = 0; round < 300; round++) {
    const next = rng(SEED + round);
    const about = `SEED=${SEED} round ${round}`;
    const clusterSize = next.pick([512, 4096, 65_536]);
    const { streams, fileEnd } = randomStreams(next, clusterSize);
    const list = new ExtentList();
    const source = next.below(3);
    for (const { guest, host, stored } of streams) {
      list.push(ExtentKind.compressed, guest, clusterSize, source, host, stored, 0);
      // Somebody else's.
      if (next.oneIn(10)) list.push(ExtentKind.compressed, guest, clusterSize, 7, host, stored, 0);
    }
    const copies = new CopyList();
    const isAdded = new Uint8Array(list.count);
    const window = { list, diskStart: 0, clusterSize, diskSize: 2 ** 40 };
    copies.addStreams(window, source, fileEnd, isAdded);
    const starts = new Set(streams.map(({ host }) => host));
    /** Lengths by host offset, in the order they were found in. */
    const found = new Map<number, number>();
    while (!copies.isEmpty) {
      const bytesMax = next.pick([1, 10 * clusterSize, 2 ** 30]);
      const job = copies.take(bytesMax, next.pick([1, 5, 4096]), clusterSize);
      let bytes = 0;
      for (let index = 0; index < job.hosts.length; index++) {
        const stream = streams[job.units[index * 3]!]!;
        assert.is(job.hosts[index], stream.host, about);
        assert.is(job.sources[index], source, about);
        const length = job.units[index * 3 + 1]!;
        // What lies behind it in its last sector belongs to nobody, where it is not cut off.
        assert.ok(length >= stream.length && length <= stream.stored, `${about} ${length}`);
        if (starts.has(stream.host + stream.length)) assert.is(length, stream.length, about);
        found.set(stream.host, length);
        bytes += length;
      }
      assert.ok(job.hosts.length > 0 && (bytes <= bytesMax || job.hosts.length === 1), about);
    }
    assert.is(
      found.size,
      isAdded.reduce((sum, one) => sum + one, 0),
      about,
    );
    const inOrder = (hosts: readonly number[]): number => {
      const ends = [-1, ...hosts.map((host) => host + found.get(host)!)];
      return hosts.filter((host, index) => host !== ends[index]).length;
    };
    const ranges = inOrder([...found.keys()]);
    const inGuest = inOrder(streams.map(({ host }) => host).filter((host) => found.has(host)));
    const inFile = inOrder([...found.keys()].sort((a, b) => a - b));
    assert.is(ranges, inFile * 2 <= inGuest ? inFile : inGuest, about);
  }
});

test('a stream that may not be there as a whole is none', () => {
  const list = new ExtentList();
  list.push(ExtentKind.compressed, 0, 4096, 0, 1000, 536, 0);
  for (const [fileEnd, expected] of [
    [1536, 536],
    [1025, 25],
    [1024, 0],
    [1000, 0],
    [10, 0],
  ] as const) {
    const copies = new CopyList();
    const window = { list, diskStart: 0, clusterSize: 4096, diskSize: 4096 };
    copies.addStreams(window, 0, fileEnd, new Uint8Array(1));
    assert.is(copies.isEmpty, expected === 0, `file of ${fileEnd} bytes`);
    if (expected > 0) assert.is(copies.take(1, 1, 4096).units[1], expected);
  }
});

test('hosts beyond what sorts by numbers', () => {
  const list = new ExtentList();
  const far = 2 ** 52;
  for (let index = 0; index < 8; index++) {
    const host = far + ((index * 3) % 8) * 512;
    list.push(ExtentKind.compressed, index * 4096, 4096, 0, host, 512, 0);
  }
  const copies = new CopyList();
  const window = { list, diskStart: 0, clusterSize: 4096, diskSize: 2 ** 40 };
  copies.addStreams(window, 0, 2 ** 53, new Uint8Array(8));
  const { hosts } = copies.take(2 ** 30, 100, 4096);
  assert.equal(
    [...hosts],
    [0, 1, 2, 3, 4, 5, 6, 7].map((index) => far + index * 512),
  );
});

async function someDisks(next: Random, clusterBits: number): Promise<Disk[]> {
  const disks: Disk[] = [];
  for (let count = 1 + next.below(3); count > 0; count--) {
    const bits = next.oneIn(4) ? 12 : clusterBits;
    const size = 512 * (1 + next.below(3000));
    const { file } = randomTiny(next, { version: 3, clusterBits: bits, size });
    disks.push(await openDisk(memoryStorage(file)));
  }
  return disks;
}

test('every cluster comes once, and before it is said to have', async () => {
  for (let round = 0; round < 25; round++) {
    const next = rng(SEED + round);
    const about = `SEED=${SEED} round ${round}`;
    const clusterBits = next.pick([9, 10, 12]);
    const clusterSize = 2 ** clusterBits;
    const disks = await someDisks(next, clusterBits);
    const diskSize = disks.reduce((sum, { size }) => sum + size, 0);
    const planner = new Planner(disks, {
      jobBytes: Math.max(2 ** 13, clusterSize * next.pick([9, 100])),
      firstJobBytes: next.oneIn(2) ? 2 ** 13 : undefined,
      clusters: { clusterSize, diskSize, copies: 'deflate', moves: next.oneIn(2) },
      writeZeros: true,
      holdFrom: Number.POSITIVE_INFINITY,
    });
    /** How often each sector came. */
    const done = new Uint8Array(diskSize / 512);
    /** The job that a cluster of the target is in. */
    const jobOf = new Map<number, number>();
    let [complete, passed, jobs] = [0, 0, 0];
    const meet = (from: number, to: number) => {
      assert.ok(from >= complete, `${about}: ${from} after ${complete} was said to be done`);
      assert.ok(from % 512 === 0 && to % 512 === 0, about);
      for (let at = from / 512; at < to / 512; at++) done[at]!++;
      const first = Math.floor(from / clusterSize);
      for (let cluster = first; cluster * clusterSize < to; cluster++) {
        assert.is(jobOf.get(cluster) ?? jobs, jobs, `${about}: ${cluster} is in two jobs`);
        jobOf.set(cluster, jobs);
      }
    };
    for (let job = await planner.next(); job; job = await planner.next()) {
      if (job.copies) {
        const { units } = job.copies;
        for (let unit = 0; unit < units.length; unit += 3) {
          const from = units[unit]! * clusterSize;
          if (units[unit + 1] !== UnitState.data) assert.ok(units[unit + 1]! <= clusterSize);
          meet(from, Math.min(diskSize, from + clusterSize));
        }
      } else {
        for (let op = 0; op < job.ops.length; op += OP_STRIDE) {
          meet(job.ops[op + 4]!, job.ops[op + 4]! + job.ops[op + 5]!);
        }
      }
      assert.ok(job.until >= complete, about);
      complete = job.until;
      passed += job.span;
      jobs++;
    }
    assert.ok(
      done.every((times) => times === 1),
      `${about}: all of the disk`,
    );
    assert.ok(passed >= diskSize && passed < diskSize + clusterSize, `${about}: ${passed}`);
  }
});

test('copies of four windows come before what is to be made of one', async () => {
  for (let round = 0; round < 10; round++) {
    const next = rng(SEED + round);
    const about = `SEED=${SEED} round ${round}`;
    // A disk is a window, if it is not a large one.
    const size = 512 * 400;
    const disks: Disk[] = [];
    while (disks.length < 12) {
      const { file } = randomTiny(next, { version: 3, clusterBits: 9, size });
      disks.push(await openDisk(memoryStorage(file)));
    }
    const planner = new Planner(disks, {
      jobBytes: 2 ** 13,
      clusters: { clusterSize: 512, diskSize: size * 12, copies: 'deflate' },
      writeZeros: false,
      holdFrom: Number.POSITIVE_INFINITY,
    });
    let copied = -1;
    const leads: number[] = [];
    for (let job = await planner.next(); job; job = await planner.next()) {
      if (job.copies) copied = Math.floor((job.copies.units[0]! * 512) / size);
      else if (copied < 11) leads.push(copied - Math.floor(job.ops[4]! / size));
    }
    assert.ok(leads.length > 12, about);
    // A job that is not full ends when the next window's turn has come.
    assert.ok(
      leads.every((lead) => lead === 4 || lead === 5),
      `${about}: ${leads}`,
    );
  }
});

test('a job of few clusters, where a rate says so', async () => {
  const next = rng();
  const { file } = randomTiny(next, { version: 3, clusterBits: 12, size: 2 ** 21 });
  const disk = await openDisk(memoryStorage(file));
  const clusters = {
    clusterSize: 4096,
    diskSize: 2 ** 21,
    copies: 'deflate',
    moves: true,
  } as const;
  const planner = new Planner([disk], {
    jobBytes: 2 ** 20,
    clusters,
    copiesMax: 3,
    writeZeros: false,
    holdFrom: Number.POSITIVE_INFINITY,
  });
  let copied = 0;
  for (let job = await planner.next(); job; job = await planner.next()) {
    if (!job.copies) continue;
    assert.ok(job.copies.hosts.length <= 3);
    copied += job.copies.hosts.length;
  }
  assert.ok(copied > 3, `SEED=${SEED}`);
});

test.run();
