/** Run records as values, for the tests of the two L2 kernels. */
import { RUN_BYTES, RunKind } from '../../src/kernels/kernels.ts';
import { OUT, view } from './guarded.ts';

/** `[kind, units, host, stored bytes]` */
export type Run = readonly [keyof typeof RunKind, number, number, number];

const names = Object.keys(RunKind) as (keyof typeof RunKind)[];

/** The records at OUT. The reserved field must be 0: it shows as a wrong count of bytes. */
export function runsAt(count: number): Run[] {
  return Array.from({ length: count }, (_, i) => {
    const at = OUT + i * RUN_BYTES;
    const kind = view.getUint32(at, true);
    return [
      names.find((name) => RunKind[name] === kind)!,
      view.getUint32(at + 4, true),
      view.getFloat64(at + 8, true),
      view.getUint32(at + 16, true) + view.getUint32(at + 20, true),
    ] as const;
  });
}
