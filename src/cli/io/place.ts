/** What the settings of a disk say of how it is opened, beside the tool's flags. */
import { Qcow2Error } from '../../base/errors.ts';
import type { Host } from '../command.ts';
import { zeroPolicy } from '../general-settings.ts';
import { type ImageNode, pathOf, resolveImage } from '../image-node.ts';
import { type Settings, settingsOfName, switchOf } from '../settings.ts';
import { type OpenFlags, withDirect } from './open-flags.ts';

/** Where a disk is and how it is opened. */
export interface DiskPlace extends ImageNode {
  /** Path of its file, or the name that it was given by. */
  readonly path: string;
  readonly flags: OpenFlags;
  /** What it was asked for by: the file's name, if that is no list of settings, and settings. */
  readonly asked: { readonly filename: string | undefined; readonly settings: Settings };
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
  const listed = filename === undefined ? undefined : settingsOfName(filename);
  const asked = {
    filename: listed ? undefined : filename,
    settings: new Map([...(listed ?? []), ...(flags.settings ?? [])]),
  };
  const node = resolveImage(host, asked.filename, { ...flags, settings: asked.settings });
  const { settings, filters } = node;
  const flagged = {
    ...withSwitches(flags, settings),
    settings,
    copyOnRead: flags.copyOnRead || (filters?.copyOnRead ?? false),
    compress: filters?.compress ?? false,
  };
  // Whoever opens it wants to write, or says so in the flags.
  if (flagged.readOnly && !flags.readOnly) {
    throw new Qcow2Error('READ_ONLY', 'Block node is read-only');
  }
  return { ...node, path: pathOf(node.file) ?? filename ?? '', flags: flagged, asked };
}

/** Flags, and what the settings say of the same. */
export function withSwitches(flags: OpenFlags, settings: Settings): OpenFlags {
  const readOnly = switchOf(settings, 'read-only') ?? flags.readOnly;
  const forceShare = switchOf(settings, 'force-share') ?? flags.forceShare;
  const direct = switchOf(settings, 'cache.direct');
  const noFlush = switchOf(settings, 'cache.no-flush');
  switchOf(settings, 'auto-read-only');
  const { discard, detectZeroes = flags.detectZeroes } = zeroPolicy(settings, flags.discard);
  let { cache } = flags;
  if (direct !== undefined) cache = withDirect(cache, direct);
  if (noFlush) cache = 'unsafe';
  return { ...flags, readOnly, forceShare, discard, cache, detectZeroes };
}
