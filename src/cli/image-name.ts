/** What a name on the command line stands for: a node, and who knows its passphrase. */
import type { Secret, SecretRequest } from '../image/secret.ts';
import { type Host, UsageError } from './command.ts';
import { type ImageNode, type NodeUse, pathOf, resolveImage } from './image-node.ts';
import { parseSettings, type Settings, textOf } from './settings.ts';

/** An image, ready to be opened. */
export interface NamedImage {
  readonly node: ImageNode;
  /** Where it is, as far as it is a file; otherwise the name that it was given by. */
  readonly path: string;
  readonly format: string | undefined;
  readonly secret: Secret;
}

/**
 * Who gave the name: the person, for a source or a target, which may be options each; or an image
 * or an option's value, which are paths.
 */
export type NameRole = 'source' | 'target' | 'path';

/**
 * @param name a path or `json:`, or options where `--image-opts` was given
 * @param format as the command line has it
 * @throws UsageError for a format beside options; Qcow2Error for what makes no sense
 */
export function nameImage(
  host: Host,
  name: string,
  format: string | undefined,
  { role = 'source', use }: { readonly role?: NameRole | undefined; readonly use?: NodeUse } = {},
): NamedImage {
  const isOptions = { source: host.imageOpts, target: host.targetImageOpts, path: false }[role];
  if (isOptions && format !== undefined && role === 'source') {
    throw new UsageError('--image-opts and --format are mutually exclusive');
  }
  // A word alone is the name of a node that is there already, and here there is none.
  const settings = isOptions ? parseSettings(host, name, 'file') : undefined;
  if (use?.forceShare && (settings?.get('force-share') ?? 'on') !== 'on') {
    throw new UsageError('--force-share/-U conflicts with image options');
  }
  const node = isOptions
    ? resolveImage(host, undefined, { settings, use })
    : resolveImage(host, name, { format, use });
  const secret = secretSource(host, (depth) => secretIdAt(node.settings, depth));
  const shown = node.bare ? 'raw' : (node.format as string | undefined);
  return { node, path: pathOf(node.file) ?? name, format: shown, secret };
}

/** The name of the secret that settings have for an image of the chain. */
export function secretIdAt(settings: Settings, depth: number): string | undefined {
  const prefix = 'backing.'.repeat(depth);
  return textOf(settings, `${prefix}encrypt.key-secret`) ?? textOf(settings, `${prefix}key-secret`);
}

/**
 * Passphrases down a chain: by the names of secrets, else the person is asked.
 * @param idAt the name for the image so many steps down, where one was given
 */
export function secretSource(host: Host, idAt: (depth: number) => string | undefined): Secret {
  return ({ name, depth }: SecretRequest) => {
    const id = idAt(depth);
    if (id !== undefined) return host.secrets.passphrase(id);
    return host.askPassphrase?.(`Passphrase for '${name}': `);
  };
}
