/** Plans: jobs hold every byte that has to be written once, in order, in pieces of a job's size. */
import { inflateRaw } from 'pako';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OP_STRIDE, OpKind } from '../../src/convert/job.ts';
import { allSources, Planner, type PlanOptions } from '../../src/convert/plan.ts';
import type { Disk } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { unlike } from '../image/disk-contract.ts';
import { randomTiny, someBytes } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('plan');

interface Planned {
  readonly jobs: { ops: Float64Array; until: number; span: number }[];
  readonly last: Float64Array;
}

async function plan(disks: readonly Disk[], options: PlanOptions): Promise<Planned> {
  const planner = new Planner(disks, options);
  const jobs = [];
  for (let job = await planner.next(); job; job = await planner.next()) {
    assert.ok(!job.copies, 'nothing is copied to a raw target');
    jobs.push(job);
  }
  return { jobs, last: planner.last() };
}

/** Carries operations out byte by byte; `at` must never go back. */
async function replay(ops: Float64Array, disks: readonly Disk[], into: Uint8Array, from: number) {
  const sources = allSources(disks);
  let at = from;
  for (let op = 0; op < ops.length; op += OP_STRIDE) {
    const [kind, source, host, stored, target, length, skip, clusterSize] = ops.slice(op, op + 8);
    assert.ok(target! >= at, `target ${target} after ${at}, SEED=${SEED}`);
    assert.ok(length! > 0);
    at = target! + length!;
    const piece = into.subarray(target, at);
    if (kind === OpKind.zero) {
      piece.fill(0);
    } else if (kind === OpKind.copy) {
      const got = await sources[source!]!.storage.read(host!, piece);
      piece.fill(0, got);
    } else {
      const stream = new Uint8Array(stored!);
      const got = await sources[source!]!.storage.read(host!, stream);
      const plain = inflateRaw(stream.subarray(0, got));
      assert.is(plain.length, clusterSize);
      piece.set(plain.subarray(skip!, skip! + length!));
    }
  }
  return at;
}

async function someDisks(next: Random): Promise<{ disks: Disk[]; model: Uint8Array }> {
  const disks: Disk[] = [];
  const models: Uint8Array[] = [];
  for (let count = 1 + next.below(3); count > 0; count--) {
    if (next.oneIn(4)) {
      const bytes = someBytes(next, 512 * next.below(300));
      disks.push(await openDisk(memoryStorage(bytes), { format: 'raw' }));
      models.push(bytes);
      continue;
    }
    const clusterBits = next.pick([9, 12, 14]);
    const size = 512 * (1 + next.below(800));
    const extended = clusterBits === 14;
    const { file, model } = randomTiny(next, { version: 3, clusterBits, size, extended });
    disks.push(await openDisk(memoryStorage(file)));
    models.push(model);
  }
  const model = new Uint8Array(models.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of models) {
    model.set(part, at);
    at += part.length;
  }
  return { disks, model };
}

test('jobs carried out in order give the disks, one after another', async () => {
  const next = rng();
  for (let round = 0; round < 25; round++) {
    const { disks, model } = await someDisks(next);
    const options = {
      jobBytes: next.pick([300, 700, 65_536, 2 ** 23]),
      writeZeros: next.oneIn(2),
      holdFrom: next.oneIn(3) ? Number.POSITIVE_INFINITY : next.below(model.length + 1),
    };
    const place = `${JSON.stringify(options)} SEED=${SEED}`;
    const { jobs, last } = await plan(disks, options);
    // What is to be written need not read as zeros; what is not written must.
    const target = new Uint8Array(model.length).fill(options.writeZeros ? 0xee : 0);
    let at = 0;
    let until = 0;
    for (const job of jobs) {
      at = await replay(job.ops, disks, target, at);
      assert.ok(job.until >= until && at <= job.until, place);
      assert.is(job.span, job.until - until, place);
      until = job.until;
      assert.ok(at <= Math.max(options.holdFrom, 0), `held back, ${place}`);
      assert.ok(job.ops.length <= 4096 * OP_STRIDE);
    }
    if (last.length > 0) assert.ok(last[4]! >= options.holdFrom, place);
    await replay(last, disks, target, 0);
    assert.is(unlike(target, model), '', place);
  }
});

test('long ranges are cut into parts of a job’s size', async () => {
  const disk = await openDisk(memoryStorage(new Uint8Array(10_240).fill(1)), { format: 'raw' });
  const { jobs } = await plan([disk], { jobBytes: 4096, writeZeros: false, holdFrom: 2 ** 40 });
  assert.equal(
    jobs.map(({ ops, until }) => [ops.length / OP_STRIDE, ops[5], until]),
    [
      [1, 4096, 4096],
      [1, 4096, 8192],
      [1, 2048, 10_240],
    ],
  );
});

test('a disk without data has no jobs where zeros are not written', async () => {
  const clusterBits = 21;
  const { file } = randomTiny(rng(), { version: 3, clusterBits, size: 512 });
  // The same image, vast: one unallocated cluster, and terabytes behind it.
  new DataView(file.buffer).setBigUint64(24, 2n ** 44n);
  new DataView(file.buffer).setUint32(36, 2 ** 44 / 2 ** 39);
  file.fill(0, 2 * 2 ** 21, 2 * 2 ** 21 + 1024);
  const disk = await openDisk(memoryStorage(file));
  const { jobs, last } = await plan([disk], { jobBytes: 1, writeZeros: false, holdFrom: 2 ** 60 });
  assert.is(jobs.length, 0);
  assert.is(last.length, 0);
});

test('no disks, no jobs', async () => {
  const { jobs } = await plan([], { jobBytes: 1, writeZeros: true, holdFrom: 0 });
  assert.is(jobs.length, 0);
});

test.run();
