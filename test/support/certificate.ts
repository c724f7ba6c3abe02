import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** A self-signed certificate for 127.0.0.1 and localhost, and its key, both PEM. */
export async function makeCertificate(commonName: string): Promise<{ cert: string; key: string }> {
  const folder = await mkdtemp(join(tmpdir(), "parley-tls-"));
  try {
    const [keyPath, certPath] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const names = ["-subj", `/CN=${commonName}`, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    const files = ["-keyout", keyPath, "-out", certPath, "-days", "2"];
    await promisify(execFile)("openssl", ["req", "-x509", ...curve, ...names, ...files]);
    return { cert: await readFile(certPath, "utf8"), key: await readFile(keyPath, "utf8") };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
