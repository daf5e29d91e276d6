/**
 * What settings the nodes of an image know, each judged when it is known what the node is: by its
 * driver at first, by the image itself once that is open.
 */
import { Qcow2Error } from '../base/errors.ts';
import { hasFeature, Incompatible } from '../format/feature-bits.ts';
import type { Format } from '../image/formats.ts';
import type { FileDriver } from '../storage/node-file.ts';
import { GENERAL, zeroPolicy } from './general-settings.ts';
import { checkTuning, isTuning, type TunedImage } from './qcow2-settings.ts';
import { NULL, type Settings, textOf } from './settings.ts';
import { inTableOrder } from './table-order.ts';

/** What else each driver takes; names that end in a dot begin those of more settings. */
const OF_DRIVER: Record<string, readonly string[]> = {
  file: [
    ...['filename', 'locking', 'aio', 'aio-max-batch', 'pr-manager', 'drop-cache'],
    'x-check-cache-dropped',
  ],
  'null-co': ['size', 'latency-ns', 'read-zeroes'],
  'null-aio': ['size', 'latency-ns', 'read-zeroes'],
  raw: ['offset', 'size', 'file', 'file.'],
  blkdebug: [
    ...['config', 'x-image', 'image', 'image.', 'align', 'max-transfer', 'opt-write-zero'],
    ...['max-write-zero', 'opt-discard', 'max-discard', 'inject-error.', 'set-state.'],
    ...['take-child-perms.', 'unshare-child-perms.'],
  ],
  qcow2: [...['file', 'file.', 'backing', 'backing.', 'data-file', 'data-file.'], 'encrypt.'],
  luks: ['file', 'file.', 'key-secret'],
  'copy-on-read': ['file', 'file.', 'bottom'],
  compress: ['file', 'file.'],
};

/** Drivers that need no format above them. */
export const FILE_DRIVERS: readonly FileDriver[] = ['file', 'host_device', 'host_cdrom'];
export const BARE: readonly string[] = [...FILE_DRIVERS, 'null-co', 'null-aio', 'blkdebug'];

/** Settings about what is behind an image. */
export const BEHIND = /^backing(\.|$)/;

/** An error in QEMU's words. */
export function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}

function isKnown(driver: string, name: string): boolean {
  if (GENERAL.includes(name) || (driver === 'qcow2' && isTuning(name))) return true;
  const own = OF_DRIVER[driver] ?? [];
  return own.some((one) => (one.endsWith('.') ? name.startsWith(one) : name === one));
}

/**
 * @param like another driver, which takes the same settings
 * @throws Qcow2Error OUT_OF_RANGE or UNSUPPORTED for a setting that the driver does not know
 */
export function checkSettings(settings: Settings, driver: string, like = driver): void {
  const name = inTableOrder([...settings.keys()]).find((one) => !isKnown(like, one));
  if (name === undefined) return;
  if (BARE.includes(driver)) {
    throw wrong(`Block protocol '${driver}' doesn't support the option '${name}'`);
  }
  throw new Qcow2Error(
    'UNSUPPORTED',
    `Block format '${driver}' does not support the option '${name}'`,
  );
}

/**
 * What only the format can say, once it is known; of qcow2 the rest is `checkQcow2Settings`'s.
 * @throws Qcow2Error OUT_OF_RANGE or UNSUPPORTED
 */
export function checkFormatSettings(
  { settings, bare }: { readonly settings: Settings; readonly bare?: boolean },
  format: Format,
  {
    discard = false,
    opens = 'all',
  }: { readonly discard?: boolean; readonly opens?: OpenedParts } = {},
): void {
  if (!bare) zeroPolicy(settings, discard);
  if (format === 'qcow2') return;
  const backing = settings.get('backing');
  const isNone = backing === '' || backing === NULL;
  const behind = [...settings.keys()].filter((name) => BEHIND.test(name));
  if (opens === 'all' && !isNone && behind.length > 0) {
    throw wrong("Driver doesn't support backing files");
  }
  const own = [...settings].filter(([name]) => name !== 'backing' || !isNone);
  if (!bare) checkSettings(new Map(own), format);
  else
    checkSettings(
      new Map(own.filter(([name]) => BEHIND.test(name))),
      textOf(settings, 'driver') ?? '',
    );
}

/** What of an image a command opens beside its own file: its data file, what lies behind it. */
export type OpenedParts = 'nothing' | 'data file' | 'all';

/**
 * What only an image itself can say.
 * @throws Qcow2Error OUT_OF_RANGE or UNSUPPORTED; HintedError for sizes that are none
 */
export function checkQcow2Settings(
  settings: Settings,
  image: TunedImage,
  { opens = 'all' }: { readonly opens?: OpenedParts | undefined } = {},
): void {
  checkTuning(settings, image);
  const dataFile = [...settings.keys()].some((name) => /^data-file(\.|$)/.test(name));
  if (
    dataFile &&
    opens !== 'nothing' &&
    !hasFeature(image.header.incompatible, Incompatible.dataFile)
  ) {
    throw wrong("'data-file' can only be set for images with an external data file");
  }
}

/**
 * Settings that a qcow2 image has no use for: known once all is open that goes with it.
 * @throws Qcow2Error UNSUPPORTED
 */
export function refuseUnknownSettings(
  settings: Settings,
  { opens = 'all' }: { readonly opens?: OpenedParts | undefined } = {},
): void {
  const backing = settings.get('backing');
  const isNone = backing === '' || backing === NULL;
  // Whoever opens nothing behind an image may be told so, and no more.
  const isOfNoUse = (name: string) =>
    (opens !== 'all' || isNone) && BEHIND.test(name) && (name !== 'backing' || !isNone);
  const name = inTableOrder([...settings.keys()]).find(
    (one) => !isKnown('qcow2', one) || isOfNoUse(one),
  );
  if (name === undefined) return;
  const message = `Block format 'qcow2' does not support the option '${name}'`;
  throw new Qcow2Error('UNSUPPORTED', message);
}
