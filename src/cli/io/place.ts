/**
 * What the settings of a disk come to: which file it is in, its format, what lies behind it, and
 * how it is opened. In the words of QEMU where something of that is wrong.
 */
import { Qcow2Error } from '../../base/errors.ts';
import { type Format, isFormat } from '../../image/open.ts';
import type { Host } from '../command.ts';
import { resolveName } from '../path-gate.ts';
import type { OpenFlags } from './open-flags.ts';
import { isTuning } from './qcow2-settings.ts';
import { NOTHING, type Settings, settingsOfName, settingsUnder, switchOf } from './settings.ts';

/** Where a disk is and how it is opened. */
export interface DiskPlace {
  readonly path: string;
  /** Undefined: the file's first bytes say. */
  readonly format: Format | undefined;
  /** The file itself is the disk: no format stands between. */
  readonly bare: boolean;
  readonly flags: OpenFlags;
  /** False: the file is not claimed among those who lock images. */
  readonly locking: boolean;
  /** What stands in for the backing file that the image names; an empty path: nothing. */
  readonly backing: { readonly path: string; readonly format: Format | undefined } | undefined;
  /** Stands in for the data file that the image names. */
  readonly dataFile: string | undefined;
  readonly settings: Settings;
}

/** Settings that every part of a disk takes. */
const GENERAL = [
  'driver',
  'node-name',
  'read-only',
  'auto-read-only',
  'force-share',
  'cache.direct',
  'cache.no-flush',
  'discard',
  'detect-zeroes',
];
/** Those of a file beyond them. */
const OF_FILES = ['filename', 'locking', 'aio', 'aio-max-batch', 'pr-manager', 'drop-cache'];
/** Those of encrypted images, by format. */
const OF_ENCRYPTION: Partial<Record<string, readonly string[]>> = {
  qcow2: ['encrypt.format', 'encrypt.key-secret'],
  luks: ['key-secret'],
};
const FILE_DRIVERS = ['file', 'host_device'];

function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}

/**
 * @param filename a path, or `json:` with settings
 * @throws Qcow2Error OUT_OF_RANGE or UNSUPPORTED for settings that are wrong
 */
export function resolvePlace(
  host: Host,
  filename: string | undefined,
  flags: OpenFlags,
): DiskPlace {
  const named = filename === undefined ? undefined : settingsOfName(filename);
  const settings: Settings = new Map([...(named ?? []), ...(flags.settings ?? [])]);
  const path = named || filename === undefined ? undefined : resolveName(filename, '');
  const driver = flags.format ?? settings.get('driver');
  const flagged = { ...withSwitches(flags, settings), settings };
  // Whoever opens it wants to write, or says so in the flags.
  const readOnly = flagged.readOnly && !flags.readOnly;
  checkNodeName(settings);
  if (readOnly) throw new Qcow2Error('READ_ONLY', 'Block node is read-only');
  if (driver !== undefined && FILE_DRIVERS.includes(driver)) {
    checkFile(settings);
    const where = path ?? settings.get('filename');
    if (where === undefined) throw wrong("The 'file' block driver requires a file name");
    const locking = settings.get('locking') !== 'off';
    const place = { path: where, format: 'raw', bare: true, locking } as const;
    return { ...place, flags: flagged, backing: undefined, dataFile: undefined, settings };
  }
  if (driver !== undefined && !isFormat(driver)) {
    throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${driver}'`);
  }
  const file = fileOf(settings, path, driver);
  return {
    path: file.path,
    format: driver,
    bare: false,
    flags: flagged,
    locking: file.settings.get('locking') !== 'off',
    backing: backingOf(host, settings),
    dataFile: settingsUnder(settings, 'data-file').get('filename'),
    settings,
  };
}

/** The file under a format. */
function fileOf(
  settings: Settings,
  path: string | undefined,
  driver: string | undefined,
): { readonly path: string; readonly settings: Settings } {
  const own = settingsUnder(settings, 'file');
  if (path !== undefined) {
    if (own.has('filename')) {
      throw wrong("Can't specify 'file' and 'filename' options at the same time");
    }
  } else if (settings.has('file')) throw noNode(settings.get('file') as string);
  else if (own.size === 0) {
    if (driver === undefined) throw wrong('Must specify either driver or file');
    throw wrong('A block device must be specified for "file"');
  }
  const below = own.get('driver') ?? 'file';
  // A raw format in between changes nothing.
  if (below === 'raw') return fileOf(own, undefined, below);
  if (isFormat(below)) {
    throw new Qcow2Error('UNSUPPORTED', 'images within images are not supported');
  }
  if (!FILE_DRIVERS.includes(below)) {
    throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${below}'`);
  }
  checkFile(own);
  const where = path ?? own.get('filename');
  if (where === undefined) throw wrong("The 'file' block driver requires a file name");
  return { path: where, settings: own };
}

function backingOf(host: Host, settings: Settings): DiskPlace['backing'] {
  const named = settings.get('backing');
  if (named === '' || named === NOTHING) {
    const what = 'Use of "backing": "" is deprecated; use "backing": null instead';
    if (named === '') host.error(`warning: ${what}`);
    return { path: '', format: undefined };
  }
  if (named !== undefined) {
    throw wrong(`Could not open backing file: ${noNode(named).message}`);
  }
  const own = settingsUnder(settings, 'backing');
  const driver = own.get('driver');
  if (driver !== undefined && !isFormat(driver)) {
    const message = `Could not open backing file: Unknown driver '${driver}'`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  const path = settingsUnder(own, 'file').get('filename');
  return path === undefined ? undefined : { path, format: driver };
}

function noNode(name: string): Qcow2Error {
  return wrong(`Cannot find device='${name}' nor node-name='${name}'`);
}

function checkNodeName(settings: Settings): void {
  const name = settings.get('node-name');
  if (name === undefined || /^[A-Za-z][\w.-]*$/.test(name)) return;
  throw wrong(`Invalid node-name: '${name}'`);
}

function checkFile(settings: Settings): void {
  checkNodeName(settings);
  for (const name of settings.keys()) {
    if (GENERAL.includes(name) || OF_FILES.includes(name)) continue;
    throw wrong(`Block protocol 'file' doesn't support the option '${name.replace(/\..*/, '')}'`);
  }
  const locking = settings.get('locking');
  if (locking !== undefined && !['on', 'off', 'auto'].includes(locking)) {
    throw wrong(`invalid parameter value: ${locking}`);
  }
}

/** What only the format can say, once it is known. */
export function checkFormatSettings({ settings, bare }: DiskPlace, format: Format): void {
  if (bare) return;
  for (const name of settings.keys()) {
    const part = /^(file|backing|data-file)(\.|$)/.exec(name)?.[1];
    if (GENERAL.includes(name) || part === 'file') continue;
    if (format === 'qcow2' && (part !== undefined || isTuning(name))) continue;
    if (OF_ENCRYPTION[format]?.includes(name)) continue;
    const why = `Block format '${format}' does not support the option '${name}'`;
    throw new Qcow2Error('UNSUPPORTED', why);
  }
}

/** Flags, and what the settings say of the same. */
export function withSwitches(flags: OpenFlags, settings: Settings): OpenFlags {
  const readOnly = switchOf(settings, 'read-only') ?? flags.readOnly;
  const forceShare = switchOf(settings, 'force-share') ?? flags.forceShare;
  const direct = switchOf(settings, 'cache.direct');
  const noFlush = switchOf(settings, 'cache.no-flush');
  switchOf(settings, 'auto-read-only');
  const discarding = settings.get('discard');
  if (discarding !== undefined && !['ignore', 'off', 'unmap', 'on'].includes(discarding)) {
    throw wrong('Invalid discard option');
  }
  const discard = discarding === undefined ? flags.discard : ['unmap', 'on'].includes(discarding);
  const detecting = settings.get('detect-zeroes');
  if (detecting !== undefined && !['off', 'on', 'unmap'].includes(detecting)) {
    throw wrong(`invalid parameter value: ${detecting}`);
  }
  if (detecting === 'unmap' && !discard) {
    const what = 'setting detect-zeroes to unmap is not allowed';
    throw wrong(`${what} without setting discard operation to unmap`);
  }
  let { cache } = flags;
  if (direct !== undefined) cache = direct ? 'none' : 'writeback';
  if (noFlush) cache = 'unsafe';
  const detectZeroes = (detecting as OpenFlags['detectZeroes']) ?? flags.detectZeroes;
  return { ...flags, readOnly, forceShare, discard, cache, detectZeroes };
}
