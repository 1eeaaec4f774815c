/** Amounts, lengths and times as the command line prints them, each with its unit. */

import { h } from "./dom.js";

const MSAT_PER_SAT = 1000n;
const BLOCKS_PER_DAY = 144;
const MONTHS_AND_DAYS = 2;

/** A whole number with its thousands parted; exact however large it is. */
export function number(value) {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** `10,000 sat`; a dash while it is not known. */
export function sat(amount) {
  return amount === null || amount === undefined ? "-" : `${number(amount)} sat`;
}

/** In sat where it is a whole number of them, else in msat; a dash while it is not known. */
export function msat(amount) {
  if (amount === null || amount === undefined) return "-";
  const exact = BigInt(amount);
  return exact % MSAT_PER_SAT ? `${number(exact)} msat` : sat(exact / MSAT_PER_SAT);
}

/** How many of something there are: `1 client`, `2 clients`. */
export function counted(n, thing, things = `${thing}s`) {
  return `${number(n)} ${Number(n) === 1 ? thing : things}`;
}

export const blocks = (n) => counted(n, "block");

/** A number with a fixed number of decimals, rounded as the command line rounds. */
export function fixed(value, places) {
  return new Intl.NumberFormat("en-US", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
    roundingMode: "halfEven",
  }).format(value);
}

/** Up to six digits of a number, and no zeros that say nothing. */
export function general(value) {
  return String(Number(Number(value).toPrecision(6)));
}

export const days = (nBlocks) => `about ${fixed(nBlocks / BLOCKS_PER_DAY, 1)} days`;
export const inDays = (nBlocks) => `${fixed(nBlocks / BLOCKS_PER_DAY, 0)} days`;

/** The beginning of a long id, which the daemon takes wherever it is unique. */
export function short(id) {
  return id === null || id === undefined ? "-" : id.slice(0, 12);
}

/** A word of the API for people: underscores are blanks. */
export const word = (text) => String(text).replaceAll("_", " ");

function two(part) {
  return String(part).padStart(MONTHS_AND_DAYS, "0");
}

function zoneOf(date) {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(date);
  return parts.find((part) => part.type === "timeZoneName").value;
}

/** The time of day of a moment by this machine's clock. */
export function clock(milliseconds) {
  const at = new Date(milliseconds);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A moment by this machine's clock, with its zone; a dash if it is not known. */
export function localTime(unixTime) {
  if (unixTime === null || unixTime === undefined) return "-";
  const at = new Date(unixTime * 1000);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${clock(at)} ${zoneOf(at)}`;
}

/** The same as an element. */
export function time(unixTime) {
  if (unixTime === null || unixTime === undefined) return "-";
  return h("time", { datetime: new Date(unixTime * 1000).toISOString() }, localTime(unixTime));
}

/** A long id, whole for whoever asks for it: short in the text, whole where it is pointed at. */
export function id(whole) {
  if (whole === null || whole === undefined) return "-";
  return h("code", { title: whole }, short(whole));
}
