/** Where in the target a conversion was, as something of it could not be written. */
import { isQcow2Error, type Qcow2Error } from '../base/errors.ts';

const PLACES = new WeakMap<Qcow2Error, number>();

/**
 * Notes the target byte that the work began with in which the host refused something. What knows
 * which part of a source it was about is left alone: reading failed, and not writing.
 */
export function atTarget(cause: unknown, target: number): unknown {
  const isHosts = isQcow2Error(cause, 'IO', 'NO_SPACE') && cause.guest === undefined;
  if (isHosts && !PLACES.has(cause)) PLACES.set(cause, target);
  return cause;
}

/** @returns undefined where nothing was being written */
export function unwrittenFrom(cause: Qcow2Error): number | undefined {
  return PLACES.get(cause);
}
