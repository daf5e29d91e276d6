/** The twin of assembly/run-record.ts. */

export function putRun(
  view: DataView,
  at: number,
  kind: number,
  units: number,
  host: number,
  bytes: number,
): void {
  view.setUint32(at, kind, true);
  view.setUint32(at + 4, units, true);
  view.setFloat64(at + 8, host, true);
  view.setUint32(at + 16, bytes, true);
  view.setUint32(at + 20, 0, true);
}
