// Reads the attributes of a PET's instances as JSON from stdin; writes the factors that OHIF would scale them by, or why not.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { calculateSUVScalingFactors } = createRequire(import.meta.url)("@cornerstonejs/calculate-suv");
console.warn = () => {};
const written = (name, value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value);
let answer;
try {
  answer = { factors: calculateSUVScalingFactors(JSON.parse(readFileSync(0, "utf-8"))) };
} catch (error) {
  answer = { refused: error.message };
}
process.stdout.write(JSON.stringify(answer, written));
