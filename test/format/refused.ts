/** What a parser says of bytes that break the format. Browser-safe. */
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error } from '../../src/base/errors.ts';

/** Asserts that `parse` throws a Qcow2Error of this code, at this file offset. */
export function refused(
  parse: () => unknown,
  code: ErrorCode,
  at: number | undefined,
  message: string | RegExp = /./,
): void {
  try {
    parse();
  } catch (cause) {
    assert.ok(isQcow2Error(cause), String((cause as Error).stack));
    assert.equal({ code: cause.code, at: cause.at }, { code, at }, cause.message);
    if (typeof message === 'string') assert.is(cause.message, message);
    else assert.match(cause.message, message);
    return;
  }
  assert.unreachable(`not refused: ${code} at ${at}`);
}

/** A view of `bytes` zero bytes. */
export function viewOf(bytes: number): DataView {
  return new DataView(new ArrayBuffer(bytes));
}

/** Writes a big-endian field of 1 to 8 bytes. */
export function put(bytes: Uint8Array, at: number, length: number, value: number | bigint): void {
  let rest = BigInt.asUintN(64, BigInt(value));
  for (let i = length - 1; i >= 0; i--) {
    bytes[at + i] = Number(rest & 255n);
    rest >>= 8n;
  }
}
