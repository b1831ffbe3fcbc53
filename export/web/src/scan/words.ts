/** Numbers in lines for people, written as the command line writes them. */

export function thousands(n: number): string {
  return n.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** So many significant digits, as `%.4g` writes them. */
export function general(value: number, digits: number): string {
  if (value === 0 || !Number.isFinite(value)) return python(value).replace(/\.0$/, "");
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e") as [string, string];
  const power = Number(exponent);
  return power >= -4 && power < digits ? String(Number(value.toPrecision(digits))) : Number(mantissa) + exponentOf(power);
}

/** The shortest text of a float, as Python writes it. */
export function python(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const power = value === 0 ? 0 : Number(value.toExponential().split("e")[1]);
  if (power < -4 || power >= 16) return value.toExponential().split("e")[0] + exponentOf(power);
  return Number.isInteger(value) ? `${Object.is(value, -0) ? "-0" : value}.0` : String(value);
}

function exponentOf(power: number): string {
  return `e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/** Bytes as Python writes them. */
export function pythonBytes(bytes: Uint8Array): string {
  const letters = Array.from(bytes, (byte) => {
    const known = { 9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\" }[byte];
    return known ?? (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`);
  });
  return `b'${letters.join("")}'`;
}
