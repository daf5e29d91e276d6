/** What a name on the command line stands for: a path, a format, who knows its passphrase. */
import type { Secret, SecretRequest } from '../image/secret.ts';
import { type Host, UsageError } from './command.ts';
import { type ImageNode, parseImageOpts } from './image-opts.ts';

/** An image, ready to be opened. */
export interface NamedImage {
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
 * @param name a path, or options where `--image-opts` was given
 * @param format as the command line has it
 * @throws UsageError for options that make no sense, and a format beside them
 */
export function nameImage(
  host: Host,
  name: string,
  format: string | undefined,
  role: NameRole = 'source',
): NamedImage {
  const isOptions = { source: host.imageOpts, target: host.targetImageOpts, path: false }[role];
  if (!isOptions) return { path: name, format, secret: secretSource(host, () => undefined) };
  if (format !== undefined && role === 'source') {
    throw new UsageError('--image-opts and --format are mutually exclusive');
  }
  const node = parseImageOpts(name);
  const secret = secretSource(host, (depth) => secretIdAt(node, depth));
  return { path: node.filename as string, format: node.driver, secret };
}

function secretIdAt(first: ImageNode, depth: number): string | undefined {
  let node: ImageNode | undefined = first;
  for (let step = 0; step < depth; step++) node = node?.backing;
  return node?.secretId;
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
