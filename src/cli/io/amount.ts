/** Amounts of bytes and spans of time as QEMU's disk exerciser prints them. */
import { formatFixed } from '../../base/decimals.ts';

const UNITS = [' EiB', ' PiB', ' TiB', ' GiB', ' MiB', ' KiB'];

/** A size or a rate: "1.500 KiB", "2 MiB", "512 bytes". */
export function formatAmount(value: number): string {
  const index = UNITS.findIndex((_, i) => value >= 1024 ** (UNITS.length - i));
  const unit = 1024 ** (UNITS.length - index);
  const text = index < 0 ? formatFixed(value, 6) : formatFixed(value / unit, 3);
  // Digits after ".000" are lost, too: QEMU's tool cuts there.
  const point = text.indexOf('.000');
  return (point < 0 ? text : text.slice(0, point)) + (index < 0 ? ' bytes' : UNITS[index]);
}

/** "00.02 sec" below a second, and from there on, or in the machine's format, "0:01:02.03". */
export function formatSpan(seconds: number, options: { readonly machine: boolean }): string {
  const whole = Math.floor(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const hundredths = two(Math.floor((seconds - whole) * 100));
  if (whole === 0 && !options.machine) return `00.${hundredths} sec`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours}:${two(minutes)}:${two(whole % 60)}.${hundredths}`;
}
