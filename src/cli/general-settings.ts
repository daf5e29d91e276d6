/** Settings that every node takes, whatever its driver. */
import { Qcow2Error } from '../base/errors.ts';
import { type Settings, switchOf, textOf } from './settings.ts';

/** Those that are on or off. Nodes below take them over, so they are looked at before all else. */
const SWITCHES = ['read-only', 'auto-read-only', 'force-share', 'cache.direct', 'cache.no-flush'];

/** Names of all of them. */
export const GENERAL: readonly string[] = [
  ...['driver', 'node-name', 'discard', 'detect-zeroes'],
  ...SWITCHES,
];

/** What is done about zeros that are written. */
export type DetectZeroes = 'off' | 'on' | 'unmap';

/** What is done about zeros and discards. */
export interface ZeroPolicy {
  readonly discard: boolean;
  readonly detectZeroes: DetectZeroes | undefined;
}

/** @throws Qcow2Error OUT_OF_RANGE for a switch that is neither on nor off */
export function checkSwitches(settings: Settings): void {
  for (const name of SWITCHES) switchOf(settings, name);
}

/**
 * What settings say of zeros and discards.
 * @param discard where they say nothing
 * @throws Qcow2Error OUT_OF_RANGE for what makes no sense
 */
export function zeroPolicy(settings: Settings, discard: boolean): ZeroPolicy {
  const discarding = textOf(settings, 'discard');
  if (discarding !== undefined && !['ignore', 'off', 'unmap', 'on'].includes(discarding)) {
    throw wrong('Invalid discard option');
  }
  const unmaps = discarding === undefined ? discard : ['unmap', 'on'].includes(discarding);
  const detecting = textOf(settings, 'detect-zeroes');
  if (detecting !== undefined && !isDetecting(detecting)) {
    throw wrong(`invalid parameter value: ${detecting}`);
  }
  if (detecting === 'unmap' && !unmaps) {
    const what = 'setting detect-zeroes to unmap is not allowed';
    throw wrong(`${what} without setting discard operation to unmap`);
  }
  return { discard: unmaps, detectZeroes: detecting };
}

function isDetecting(text: string): text is DetectZeroes {
  return text === 'off' || text === 'on' || text === 'unmap';
}

function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}
