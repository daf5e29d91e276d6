/**
 * Storage over a file that a server has, read by ranges (RFC 9110, section 14): the image stays
 * where it is, and only what is needed is fetched. Read-only.
 */
import { Qcow2Error } from '../base/errors.ts';
import { SliceStorage } from './slices.ts';
import type { HttpResource, Storage, StorageHandle } from './storage.ts';

/** How a server is asked. */
export interface HttpOptions {
  /** Headers of each request, `Authorization` for one. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether cookies go along to other origins. Default `same-origin`. */
  readonly credentials?: RequestCredentials;
}

/**
 * Asks for a file's length and version, and gives storage over it.
 * @throws Qcow2Error IO where the server cannot be reached, or has no such file; UNSUPPORTED where
 * it sends no ranges, or does not say how long the file is
 */
export async function openHttp(
  url: string | URL,
  { headers = {}, credentials = 'same-origin' }: HttpOptions = {},
): Promise<Storage> {
  const asked = { url: String(url), headers, credentials };
  const response = await get(asked, 0, 1);
  await response.body?.cancel();
  const whole = contentRange(response)?.size ?? emptySize(response);
  if (whole === undefined) {
    const why = response.status === 200 ? 'sends no ranges' : 'does not say how long it is';
    throw new Qcow2Error('UNSUPPORTED', `the server of ${asked.url} ${why}`);
  }
  const resource = { ...asked, size: whole, version: versionOf(response) };
  return httpResourceStorage(resource, asked.url);
}

/** The same for a resource that is known: what workers are given. */
export function httpResourceStorage(resource: HttpResource, name: string): Storage {
  return new HttpStorage(resource, name);
}

type Asked = Pick<HttpResource, 'url' | 'headers' | 'credentials'>;

class HttpStorage extends SliceStorage {
  constructor(
    private readonly resource: HttpResource,
    readonly name: string,
  ) {
    super();
  }

  size(): number {
    return this.resource.size;
  }

  share(): StorageHandle {
    return { kind: 'http', resource: this.resource, name: this.name };
  }

  protected async slice(from: number, to: number): Promise<Uint8Array> {
    if (to <= from) return new Uint8Array();
    const response = await this.range(from, to);
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch (cause) {
      throw new Qcow2Error('IO', `could not read ${this.name}`, from, cause);
    }
  }

  protected async stream(
    from: number,
    to: number,
  ): Promise<ReadableStreamDefaultReader<Uint8Array>> {
    if (to <= from) return new Blob([]).stream().getReader();
    const { body } = await this.range(from, to);
    if (!body) throw new Qcow2Error('IO', `could not read ${this.name}: no bytes came`, from);
    return body.getReader();
  }

  /** The bytes [from, to) of the version that was opened, and nothing else. */
  private async range(from: number, to: number): Promise<Response> {
    const { resource } = this;
    const response = await get(resource, from, to);
    const range = contentRange(response);
    const isSame = versionOf(response) === resource.version && range?.size === resource.size;
    if (response.status === 206 && range && isSame && range.from === from) return response;
    await response.body?.cancel();
    const why = isSame || !range ? 'the server sent something else' : 'it was changed meanwhile';
    throw new Qcow2Error('IO', `could not read ${this.name}: ${why}`, from);
  }
}

async function get(asked: Asked, from: number, to: number): Promise<Response> {
  const { url, credentials } = asked;
  const headers = { ...asked.headers, range: `bytes=${from}-${to - 1}` };
  let response: Response;
  try {
    response = await fetch(url, { headers, credentials, cache: 'no-store' });
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new Qcow2Error('IO', `could not read ${url}: ${text}`, from, cause);
  }
  if (response.ok || (response.status === 416 && emptySize(response) === 0)) return response;
  await response.body?.cancel();
  const status = `${response.status} ${response.statusText}`.trim();
  throw new Qcow2Error('IO', `could not read ${url}: ${status}`, from);
}

/** What a partial answer says of itself, as far as it is what was asked for. */
function contentRange(
  response: Response,
): { readonly from: number; readonly size: number } | undefined {
  // Ranges of something encoded are not ranges of the file.
  const encoding = response.headers.get('content-encoding') ?? 'identity';
  const text = response.headers.get('content-range') ?? '';
  const found = /^bytes (\d{1,16})-\d{1,16}\/(\d{1,16})$/.exec(text);
  if (response.status !== 206 || encoding !== 'identity' || !found) return undefined;
  return { from: Number(found[1]), size: Number(found[2]) };
}

/** The length of a file of which there is no byte to send. */
function emptySize(response: Response): number | undefined {
  const none = response.headers.get('content-range') === 'bytes */0';
  return response.status === 416 && none ? 0 : undefined;
}

function versionOf(response: Response): string | undefined {
  const tag = response.headers.get('etag');
  if (tag?.startsWith('"')) return tag;
  return response.headers.get('last-modified') ?? undefined;
}
