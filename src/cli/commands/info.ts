/** `qcow2-img info`: what an image, or each image of a backing chain, says about itself. */
import { formatBytes, formatSize } from '../../base/sizes.ts';
import { isFormat } from '../../image/formats.ts';
import type { Storage } from '../../storage/storage.ts';
import { fullBackingName } from '../backing-name.ts';
import { warnOfBitmaps } from '../bitmaps-warning.ts';
import { hostWithSettings } from '../cache-mode.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { explainOpen } from '../explain-open.ts';
import { parseCommandLine } from '../getopt.ts';
import type { ClaimOptions } from '../image-claims.ts';
import { nameImage } from '../image-name.ts';
import {
  driverAbove,
  type ImageNode,
  isDebugged,
  isNull,
  isOwnNode,
  pathOf,
} from '../image-node.ts';
import {
  type ImageReport,
  type ReportContext,
  reportImage,
  snapshotMembers,
} from '../image-report.ts';
import { formatJson, type JsonObject } from '../json.ts';
import { nodeName } from '../node-name.ts';
import { takeNodeName } from '../node-names.ts';
import {
  checkFormatSettings,
  checkQcow2Settings,
  refuseUnknownSettings,
} from '../node-settings.ts';
import { openFileNode } from '../open-file-node.ts';
import { given, valueGiven as lastValue, type OptionSpec } from '../options.ts';
import { pathGate } from '../path-gate.ts';
import { switchOf } from '../settings.ts';
import { snapshotList } from '../snapshot-list.ts';
import { treeText } from '../tree-text.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'output', value: true },
  { name: 'backing-chain', value: false },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

/** What the command line asks for. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  readonly json: boolean;
  readonly chain: boolean;
  readonly untrusted: boolean;
  readonly forceShare: boolean;
}

/** The subcommand. */
export const info: Command = {
  name: 'info',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const reports = await reportChain(host, request);
    host.out(request.json ? jsonText(reports, request) : reports.map(humanText).join('\n'));
    return 0;
  },
};

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const [filename, ...more] = parsed.operands;
  if (filename === undefined || more.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const output = lastValue(parsed, 'output') ?? 'human';
  if (output !== 'human' && output !== 'json') {
    throw new UsageError('--output must be used with human or json as argument.');
  }
  return {
    filename,
    format: lastValue(parsed, 'format'),
    json: output === 'json',
    chain: given(parsed, 'backing-chain'),
    untrusted: given(parsed, 'untrusted'),
    forceShare: given(parsed, 'force-share'),
  };
}

/** One image to report on, named by the person or by the image before it. */
interface Link {
  readonly filename: string;
  readonly format: string | undefined;
  /** What the person's own name stands for. */
  readonly node?: ImageNode;
}

/** Nothing is printed before the whole chain was read, so that an error stands alone. */
async function reportChain(host: Host, request: Request): Promise<ImageReport[]> {
  const { filename, format, chain, forceShare } = request;
  const use = { writable: false, forceShare };
  const reports: ImageReport[] = [];
  const seen = new Set<string>();
  const { node, path } = await explainOpen(filename, async () =>
    nameImage(host, filename, format, { use }),
  );
  let link: Link | undefined = { filename, format: node.format, node };
  while (link) {
    if (seen.has(link.filename)) {
      throw new UsageError(`Backing file '${link.filename}' creates an infinite loop.`);
    }
    seen.add(link.filename);
    const report: ImageReport = await reportLink(host, link, { ...request, filename: path });
    const { bitmapsInconsistent } = report;
    if (bitmapsInconsistent) warnOfBitmaps(host, bitmapsInconsistent === 'version2' ? 2 : 3);
    reports.push(report);
    const { backing } = report;
    link = chain && backing ? { filename: backing.path, format: backing.format } : undefined;
  }
  return reports;
}

function reportLink(host: Host, link: Link, request: Request): Promise<ImageReport> {
  const { filename, format, node } = link;
  return explainOpen(filename, async () => {
    if (format !== undefined && !isFormat(format)) {
      throw new UsageError(`Could not open '${filename}': Unknown driver '${format}'`);
    }
    const claim = { use: 'inspect', part: format, forceShare: request.forceShare } as const;
    if (node) return reportNode(host, node, claim, request);
    // The name has its folder in front already, so it stands for itself.
    const gate = pathGate(host, request.filename, { untrusted: request.untrusted, claim });
    const storage = await gate({ kind: 'backing', writable: false, name: filename, from: '' });
    try {
      return await reportStorage(host, storage, { format, path: storage.name });
    } finally {
      await storage.close();
    }
  });
}

/** What is known of images alone, and not of what stands above one. */
const OF_FILTERS = { encrypted: false, backing: undefined, specific: undefined } as const;

/** Looks at an image without what lies behind it, so that settings of that make no sense. */
async function reportNode(
  outer: Host,
  node: ImageNode,
  claim: ClaimOptions,
  { untrusted }: Pick<Request, 'untrusted'>,
): Promise<ImageReport> {
  // What stands above an image opens it as whoever reads it does.
  if (node.filters) {
    const { openImageNode } = await import('../open-node.ts');
    const whole = { ...claim, part: undefined, use: 'read' } as const;
    const { disk } = await openImageNode(outer, node, { writable: false, untrusted, claim: whole });
    await disk.close();
  }
  const host = hostWithSettings(outer, node.settings);
  const forceShare = switchOf(node.settings, 'force-share') ?? claim.forceShare;
  const { storage, format } = await openFileNode(host, node.file, {
    writable: false,
    untrusted,
    format: node.format,
    claim: { ...claim, forceShare },
  });
  try {
    checkFormatSettings(node, format, { opens: 'nothing' });
    if (isOwnNode(node)) takeNodeName(host, node.settings, storage);
    const path = pathOf(node.file);
    const report = await reportStorage(host, storage, {
      format,
      path,
      check: (metadata) => {
        checkQcow2Settings(node.settings, metadata, { opens: 'nothing' });
        refuseUnknownSettings(node.settings, { opens: 'nothing' });
      },
    });
    const isBehindRules = node.filters?.debug !== undefined || isDebugged(node.file);
    return {
      ...report,
      ...(node.filters ? OF_FILTERS : {}),
      filename: nodeName(node, format),
      format: driverAbove(node) ?? format,
      knowsDirty: !isNull(node.file),
      allocatedBytes: isBehindRules ? undefined : report.allocatedBytes,
    };
  } finally {
    await storage.close();
  }
}

function reportStorage(
  host: Host,
  storage: Storage,
  {
    format,
    path,
    check,
  }: { readonly format: string | undefined; readonly path: string | undefined } & Pick<
    ReportContext,
    'check'
  >,
): Promise<ImageReport> {
  return reportImage(storage, {
    filename: path ?? storage.name,
    format,
    allocatedBytes: path === undefined ? 0 : host.allocatedBytes(path),
    resolve: (name) => fullBackingName(name, path ?? ''),
    ...(check ? { check } : {}),
  });
}

function humanText(report: ImageReport): string {
  const { virtualSize, clusterSize, backing, snapshots, specific, allocatedBytes } = report;
  const lines = [
    `image: ${report.filename}`,
    `file format: ${report.format}`,
    `virtual size: ${formatSize(virtualSize)} (${formatBytes(virtualSize)} bytes)`,
    `disk size: ${allocatedBytes === undefined ? 'unavailable' : formatSize(allocatedBytes)}`,
  ];
  if (report.encrypted) lines.push('encrypted: yes');
  if (clusterSize !== undefined) lines.push(`cluster_size: ${clusterSize}`);
  if (report.dirty) lines.push('cleanly shut down: no');
  if (backing) {
    const { name, path, format } = backing;
    lines.push(`backing file: ${name}${path === name ? '' : ` (actual path: ${path})`}`);
    if (format !== undefined) lines.push(`backing file format: ${format}`);
  }
  if (snapshots.length > 0) lines.push('Snapshot list:', ...snapshotList(snapshots));
  const text = `${lines.join('\n')}\n`;
  if (!specific) return text;
  const { data } = specific;
  return `${text}Format specific information:\n${treeText(data as JsonObject, 1)}`;
}

function jsonText(reports: readonly ImageReport[], { chain }: Request): string {
  const objects = reports.map(jsonObject);
  return `${formatJson(chain ? objects : objects[0]!)}\n`;
}

/** Members in QEMU's order, which is that of its hash table. */
function jsonObject(report: ImageReport): JsonObject {
  const { backing, snapshots } = report;
  return {
    'backing-filename-format': backing?.format,
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotMembers) : undefined,
    'virtual-size': report.virtualSize,
    filename: report.filename,
    'cluster-size': report.clusterSize,
    format: report.format,
    'actual-size': report.allocatedBytes,
    'format-specific': report.specific,
    'full-backing-filename': backing?.path,
    encrypted: report.encrypted ? true : undefined,
    'backing-filename': backing?.name,
    'dirty-flag': report.knowsDirty === false ? undefined : report.dirty,
  };
}
