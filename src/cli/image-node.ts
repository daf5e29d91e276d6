/**
 * What a name on the command line stands for: a tree of nodes, as in QEMU. At the top a format,
 * below it where its bytes are: a file, a part of one, nothing at all (`null-co`), or another of
 * these with rules before it (`blkdebug`).
 *
 *   driver=qcow2|raw|luks|file|null-co|blkdebug|copy-on-read|compress
 *   file.…  image.…          the node below;  file.driver=file where nothing is said
 *   backing.…  data-file.…   what stands in for those that the image names
 */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { type Format, isFormat } from '../image/formats.ts';
import type { FileDriver } from '../storage/node-file.ts';
import type { Host } from './command.ts';
import { checkSwitches, GENERAL, zeroPolicy } from './general-settings.ts';
import { BARE, BEHIND, checkSettings, FILE_DRIVERS, wrong } from './node-settings.ts';
import { HintedError } from './option-list.ts';
import { pathBehind, resolveName } from './path-gate.ts';
import {
  NULL,
  numberOf,
  type Settings,
  settingsOfName,
  settingsUnder,
  switchOf,
  textOf,
} from './settings.ts';

/** Where bytes are. */
export type FileNode =
  | {
      readonly driver: 'file';
      readonly path: string;
      /** The kind of file that it has to be; undefined: whatever it is. */
      readonly kind: FileDriver | undefined;
      readonly settings: Settings;
    }
  | { readonly driver: 'null-co' | 'null-aio'; readonly size: number; readonly settings: Settings }
  | {
      readonly driver: 'raw';
      readonly below: FileNode;
      readonly offset: number;
      readonly size: number | undefined;
      readonly settings: Settings;
    }
  | DebugNode
  /** The bytes of a disk: an image within an image. */
  | { readonly driver: 'image'; readonly image: ImageNode; readonly settings: Settings };

/** Rules and limits before another node. */
export interface DebugNode {
  readonly driver: 'blkdebug';
  readonly below: FileNode;
  /** Path of a file with rules. */
  readonly config: string | undefined;
  readonly settings: Settings;
}

/** A node above a disk, which passes its requests on. */
export interface FilterNode {
  readonly driver: string;
  readonly settings: Settings;
  /** Of blkdebug. */
  readonly debug?: DebugNode;
}

/** What nodes above a disk change of how it is read and written. */
export interface Filters {
  /** All of them, from the disk up. */
  readonly nodes: readonly FilterNode[];
  /** What is read of images further down the chain is written to the disk. */
  readonly copyOnRead?: boolean;
  /** Whole clusters are written, compressed. */
  readonly compress?: boolean;
  /** Requests meet rules, and have limits. */
  readonly debug?: DebugNode;
}

/** A disk: a format, and where it is. */
export interface ImageNode {
  readonly file: FileNode;
  /** Undefined: the first bytes say. */
  readonly format: Format | undefined;
  /** The file itself is the disk: no format stands between. */
  readonly bare: boolean;
  readonly backing: Backing;
  /** Stands in for the data file that the image names: judged when it is to be opened. */
  readonly dataFile: DataFile;
  readonly settings: Settings;
  readonly filters?: Filters | undefined;
}

/** Nothing is said of a data file, or what it is. */
export type DataFile = (() => FileNode) | undefined;

/**
 * Nothing is said of a backing file, or that there is none, or what it is: judged when asked by an
 * image, with the name that this has for it.
 */
export type Backing = ((name: string) => BackingNode) | 'none' | undefined;

/** What is said of a backing file; without a file of its own it is the one that the image names. */
export type BackingNode = Omit<ImageNode, 'file' | 'bare' | 'filters'> & {
  readonly file: FileNode | undefined;
  readonly bare?: boolean;
  /** The kind of file that the one has to be which the image names. */
  readonly kind?: FileDriver;
};

/** Drivers that stand above a disk. */
const FILTERS: Readonly<Record<string, Omit<Filters, 'nodes'>>> = {
  'copy-on-read': { copyOnRead: true },
  compress: { compress: true },
};
/** Settings of a filter that are about what it stands on, too. */
const PASSED_ON = GENERAL.filter((name) => name !== 'driver' && name !== 'node-name');
/** Names that say by what they are to be opened. */
const SCHEME = /^(blkdebug|file|host_cdrom|host_device|null-aio|null-co):/;
/** Bytes of `null-co` where nothing is said. */
const NULL_BYTES = 2 ** 30;

function needBlockDevice(child: string): Qcow2Error {
  return wrong(`A block device must be specified for "${child}"`);
}

function needDriver(): Qcow2Error {
  return wrong('Must specify either driver or file');
}

/** Whether settings say where an image is. */
function hasFile(settings: Settings): boolean {
  return textOf(settings, 'file') !== undefined || settingsUnder(settings, 'file').size > 0;
}

/**
 * @param filename a path, `json:` with settings or `blkdebug:`; undefined where settings say all
 * @param format what the person says it is, apart from its settings
 * @throws Qcow2Error OUT_OF_RANGE, UNSUPPORTED or REFUSED for what is wrong with them
 */
export function resolveImage(
  host: Host,
  filename: string | undefined,
  given: {
    readonly format?: string | undefined;
    readonly settings?: Settings | undefined;
    readonly use?: NodeUse | undefined;
  },
): ImageNode {
  const named = filename === undefined ? undefined : settingsOfName(filename);
  const settings: Settings = new Map([...(named ?? []), ...(given.settings ?? [])]);
  const path = named ? undefined : filename;
  const driver = given.format ?? textOf(settings, 'driver');
  const filters = FILTERS[driver ?? ''];
  // What there is to open comes before how.
  if (driver === undefined && path === undefined && !hasFile(settings)) throw needDriver();
  checkSwitches(settings);
  const isDriver = driver === undefined || isFormat(driver) || BARE.includes(driver);
  // A node that is meant is looked for first.
  const isNode = textOf(settings, 'file') !== undefined;
  if ((isDriver || filters) && !isNode) checkSharing(settings, given.use);
  checkNodeName(settings);
  if (driver !== undefined && filters) {
    const own = settingsUnder(settings, 'file');
    const named = textOf(settings, 'file');
    if (named !== undefined) throw own.size > 0 ? referenceAndMore() : noNode(named);
    if (path === undefined && own.size === 0) throw needBlockDevice('file');
    return filtered(nodeBelow(host, own, path), { driver, settings }, filters);
  }
  if (driver !== undefined && BARE.includes(driver)) {
    const backing = backingOf(host, settings);
    const others = [...settings].filter(([name]) => !BEHIND.test(name));
    const file = fileNode(host, new Map(others), path, driver);
    if (file.driver === 'blkdebug' && file.below.driver === 'image') {
      const above = { driver, settings, debug: file };
      return filtered(file.below.image, above, { debug: file });
    }
    return { file, format: 'raw', bare: true, backing, dataFile: undefined, settings };
  }
  if (driver !== undefined && !isFormat(driver)) {
    throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${driver}'`);
  }
  const file = below(host, settings, { child: 'file', path, open: driver === undefined });
  return {
    file: driver === 'raw' ? windowOf(file, settings) : file,
    format: driver,
    bare: false,
    backing: backingOf(host, settings),
    dataFile: dataFileOf(host, settings),
    settings,
  };
}

/** What an image is named for, where it may be written. */
export interface NodeUse {
  readonly writable: boolean;
  readonly forceShare: boolean | undefined;
}

/** @throws Qcow2Error REFUSED for an image to be written that others may write, too */
export function checkSharing(settings: Settings, use: NodeUse | undefined): void {
  // It is opened to be read, and refused to the writer then.
  if (switchOf(settings, 'read-only')) return;
  if (use?.writable && (switchOf(settings, 'force-share') ?? use.forceShare)) {
    const message = 'force-share=on can only be used with read-only images';
    throw new Qcow2Error('REFUSED', message);
  }
}

/** What a filter stands on: a file by itself, where no driver is named. */
function nodeBelow(host: Host, settings: Settings, path: string | undefined): ImageNode {
  if (textOf(settings, 'driver') !== undefined) return resolveImage(host, path, { settings });
  const file = fileNode(host, settings, path, undefined);
  const rest = { backing: undefined, dataFile: undefined, settings };
  return { file, format: 'raw', bare: true, ...rest };
}

/** A disk with a node above it, which says, too, how it may be used. */
function filtered(node: ImageNode, above: FilterNode, changes: Omit<Filters, 'nodes'>): ImageNode {
  const general = [...above.settings].filter(([name]) => PASSED_ON.includes(name));
  const nodes = [...(node.filters?.nodes ?? []), above];
  return {
    ...node,
    settings: new Map([...node.settings, ...general]),
    filters: { ...node.filters, ...changes, nodes },
  };
}

/** The node that settings have under a name, or that a file's name stands for. */
function below(
  host: Host,
  settings: Settings,
  {
    child,
    path,
    open = false,
  }: { readonly child: string; readonly path?: string | undefined; readonly open?: boolean },
): FileNode {
  const own = settingsUnder(settings, child);
  const named = textOf(settings, child);
  if (path !== undefined) {
    if (own.has('filename')) throw namedTwice();
  } else if (named !== undefined) throw noNode(named);
  else if (own.size === 0) {
    throw open ? needDriver() : needBlockDevice(child);
  }
  return fileNode(host, own, path, textOf(own, 'driver'));
}

function fileNode(
  host: Host,
  settings: Settings,
  name: string | undefined,
  given: string | undefined,
): FileNode {
  if ((given ?? name ?? textOf(settings, 'filename')) === undefined) throw needDriver();
  checkNodeName(settings);
  checkSwitches(settings);
  const scheme = name === undefined ? undefined : SCHEME.exec(name)?.[1];
  const driver = given ?? scheme ?? 'file';
  switch (driver) {
    case 'file':
    case 'host_device':
    case 'host_cdrom': {
      const path =
        name === undefined ? textOf(settings, 'filename') : pathOfName(name, driver, given);
      if (path === undefined) throw wrong(`The '${driver}' block driver requires a file name`);
      checkSettings(settings, driver, 'file');
      checkFileSettings(settings);
      return { driver: 'file', path, kind: (given ?? scheme) ? driver : undefined, settings };
    }
    case 'null-co':
    case 'null-aio':
      if (name !== undefined && name !== `${driver}://`) {
        throw wrong(`The only allowed filename for this driver is '${driver}://'`);
      }
      checkSettings(settings, driver);
      switchOf(settings, 'read-zeroes');
      return { driver, size: numberOf(settings, 'size') ?? NULL_BYTES, settings };
    case 'blkdebug':
      return debugNode(host, settings, name);
    case 'raw': {
      const file = below(host, settings, { child: 'file', path: name });
      checkSettings(settings, 'raw');
      return partOf(file, settings);
    }
    default:
      if (!isFormat(driver) && !FILTERS[driver]) {
        throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${driver}'`);
      }
      return { driver: 'image', image: resolveImage(host, name, { settings }), settings };
  }
}

/** @param given the driver, where more than the name says what it is */
function pathOfName(name: string, driver: string, given: string | undefined): string {
  if (name.startsWith(`${driver}:`)) return pathBehind(name, driver);
  // To a driver that is named all of it is the path.
  return given === undefined ? resolveName(name, '') : name;
}

/** @throws Qcow2Error OUT_OF_RANGE for what no file is opened with */
function checkFileSettings(settings: Settings): void {
  zeroPolicy(settings, true);
  for (const name of ['drop-cache', 'x-check-cache-dropped']) switchOf(settings, name);
  const batch = textOf(settings, 'aio-max-batch');
  if (batch !== undefined && !/^\s*[+-]?\d+$/.test(batch)) {
    throw wrong("Parameter 'aio-max-batch' expects a number");
  }
  const aio = textOf(settings, 'aio');
  if (aio !== undefined && !['threads', 'native', 'io_uring'].includes(aio)) {
    throw wrong(`invalid parameter value: ${aio}`);
  }
  const locking = textOf(settings, 'locking');
  if (locking !== undefined && !['on', 'off', 'auto'].includes(locking)) {
    throw wrong(`invalid parameter value: ${locking}`);
  }
  const manager = textOf(settings, 'pr-manager');
  if (manager !== undefined) {
    throw wrong(`No persistent reservation manager with id '${manager}'`);
  }
}

/** `blkdebug:RULES:NAME`, or settings of the same meaning. */
function debugNode(host: Host, settings: Settings, name: string | undefined): DebugNode {
  checkSettings(settings, 'blkdebug');
  let config = textOf(settings, 'config');
  let image = name ?? textOf(settings, 'x-image');
  const legacy = /^blkdebug:(.*)$/s.exec(name ?? '')?.[1];
  if (legacy !== undefined) {
    const colon = legacy.indexOf(':');
    if (colon < 0) throw wrong('blkdebug requires both config file and image path');
    if (colon > 0) config = legacy.slice(0, colon);
    image = legacy.slice(colon + 1);
  }
  const inner = image === undefined ? undefined : settingsOfName(image);
  const node = inner
    ? fileNode(host, inner, undefined, textOf(inner, 'driver'))
    : below(host, settings, { child: 'image', path: image });
  return { driver: 'blkdebug', below: node, config, settings };
}

/** A raw format above a file: all of it needs no node of its own. */
function windowOf(file: FileNode, settings: Settings): FileNode {
  const isPart = settings.has('offset') || settings.has('size');
  return isPart ? partOf(file, settings) : file;
}

function partOf(file: FileNode, settings: Settings): FileNode {
  const offset = numberOf(settings, 'offset');
  const size = numberOf(settings, 'size');
  if (size !== undefined && size % 512 !== 0) {
    throw wrong('Specified size is not multiple of 512');
  }
  return { driver: 'raw', below: file, offset: offset ?? 0, size, settings };
}

function backingOf(host: Host, settings: Settings): Backing {
  const named = textOf(settings, 'backing');
  if (named === '' || settings.get('backing') === NULL) {
    const what = 'Use of "backing": "" is deprecated; use "backing": null instead';
    if (named === '') host.error(`warning: ${what}`);
    return 'none';
  }
  const own = settingsUnder(settings, 'backing');
  if (named === undefined && own.size === 0) return undefined;
  return (name) => {
    try {
      if (named !== undefined && own.size > 0) throw referenceAndMore();
      if (named !== undefined) throw noNode(named);
      const isNamed = name !== '' && !own.has('file.filename');
      if (isNamed && own.has('filename')) throw namedTwice();
      if (isNamed && textOf(own, 'file') !== undefined) throw referenceAndMore();
      return backingNode(host, own, isNamed);
    } catch (cause) {
      throw unopened(cause);
    }
  };
}

/** @param isNamed the image in front says which file it is, in place of the settings */
function backingNode(host: Host, settings: Settings, isNamed: boolean): BackingNode {
  checkNodeName(settings);
  checkSwitches(settings);
  zeroPolicy(settings, false);
  const driver = textOf(settings, 'driver');
  if (driver !== undefined && BARE.includes(driver)) {
    if (isNamed && driver.startsWith('null-')) {
      throw wrong(`The only allowed filename for this driver is '${driver}://'`);
    }
    const kind = FILE_DRIVERS.find((one) => one === driver);
    if (!isNamed || !kind) return resolveImage(host, undefined, { settings });
    checkSettings(settings, driver, 'file');
    checkFileSettings(settings);
    const others = { backing: undefined, dataFile: undefined, settings };
    return { file: undefined, kind, format: 'raw', bare: true, ...others };
  }
  if (driver !== undefined && !isFormat(driver)) {
    throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${driver}'`);
  }
  const hasFile = settingsUnder(settings, 'file').size > 0 || settings.has('file');
  const file = hasFile ? below(host, settings, { child: 'file' }) : undefined;
  if (driver === 'raw') numberOf(settings, 'size');
  return {
    file: file && driver === 'raw' ? windowOf(file, settings) : file,
    format: driver,
    backing: backingOf(host, settings),
    dataFile: dataFileOf(host, settings),
    settings,
  };
}

/** What is wrong with an image behind another: told as any reason why that cannot be opened. */
export function unopened(cause: unknown): unknown {
  if (!(cause instanceof HintedError) && !isQcow2Error(cause)) return cause;
  return new Qcow2Error('UNSUPPORTED', cause.message, undefined, cause);
}

function dataFileOf(host: Host, settings: Settings): DataFile {
  const own = settingsUnder(settings, 'data-file');
  if (own.size === 0 && !settings.has('data-file')) return undefined;
  return () => below(host, settings, { child: 'data-file' });
}

function namedTwice(): Qcow2Error {
  return wrong("Can't specify 'file' and 'filename' options at the same time");
}

function referenceAndMore(): Qcow2Error {
  const what = 'Cannot reference an existing block device';
  return wrong(`${what} with additional options or a new filename`);
}

function noNode(name: string): Qcow2Error {
  return wrong(`Cannot find device='${name}' nor node-name='${name}'`);
}

function checkNodeName(settings: Settings): void {
  const name = textOf(settings, 'node-name');
  if (name === undefined || /^[A-Za-z][\w.-]*$/.test(name)) return;
  throw wrong(`Invalid node-name: '${name}'`);
}

/** False where the format is no node beside that of the file, which has its settings. */
export function isOwnNode({ bare, file, settings }: BackingNode): boolean {
  return !(bare && file) && file?.settings !== settings;
}

/** The name that the topmost node has; undefined: nobody has given it one. */
export function nodeNameGiven({ filters, settings }: ImageNode): string | undefined {
  return textOf(filters?.nodes.at(-1)?.settings ?? settings, 'node-name');
}

/** The driver of a node, in QEMU's words. */
export function driverOf(file: FileNode): string {
  return (file.driver === 'file' ? file.kind : undefined) ?? file.driver;
}

/** What QEMU calls a node that is no format: a filter, or what a file is reached by without one. */
export function driverAbove({ filters, bare, file }: ImageNode): string | undefined {
  return filters?.nodes.at(-1)?.driver ?? (bare ? driverOf(file) : undefined);
}

/** The image whose disk has another one within it, however deep; undefined: none has. */
export function imageWithin({ file }: ImageNode): ImageNode | undefined {
  let below = file;
  while ('below' in below) below = below.below;
  if (below.driver !== 'image') return undefined;
  return imageWithin(below.image) ?? below.image;
}

/** Path of the file that the node's bytes are in, if they are in one. */
export function pathOf(node: FileNode): string | undefined {
  if (node.driver === 'file') return node.path;
  if (node.driver === 'image') return pathOf(node.image.file);
  return 'below' in node ? pathOf(node.below) : undefined;
}

/** True where there is no file at the end. */
export function isNull(node: FileNode): boolean {
  if (node.driver === 'image') return isNull(node.image.file);
  return 'below' in node ? isNull(node.below) : node.driver !== 'file';
}

/** True where rules stand before the bytes. */
export function isDebugged(node: FileNode): boolean {
  return node.driver === 'blkdebug' || ('below' in node && isDebugged(node.below));
}
