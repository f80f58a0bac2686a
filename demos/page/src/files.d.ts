// Files that the bundler puts into the program as bytes.

declare module "*.gz" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
