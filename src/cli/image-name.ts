/** What a name on the command line stands for: a path, a format, and where passphrases come from. */
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
 * @param name a path, or options where `--image-opts` was given
 * @param format as the command line has it
 * @throws UsageError for options that make no sense, and a format beside them
 */
export function nameImage(host: Host, name: string, format: string | undefined): NamedImage {
  if (!host.imageOpts) return { path: name, format, secret: secretSource(host, undefined) };
  if (format !== undefined) {
    throw new UsageError('--image-opts and --format are mutually exclusive');
  }
  const node = parseImageOpts(name);
  return { path: node.filename as string, format: node.driver, secret: secretSource(host, node) };
}

/** Passphrases down a chain: by the names that its options have, else the person is asked. */
export function secretSource(host: Host, first: ImageNode | undefined): Secret {
  return ({ name, depth }: SecretRequest) => {
    let node = first;
    for (let step = 0; step < depth; step++) node = node?.backing;
    if (node?.secretId !== undefined) return host.secrets.passphrase(node.secretId);
    return host.askPassphrase?.(`Passphrase for '${name}': `);
  };
}
