import { assert, assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../cli/advice/errors.ts";
import { chooseProxy, type ProxyChoice } from "../cli/client/proxy_settings.ts";

type Variables = Record<string, string>;

const choose = (
  variables: Variables,
  choice: Partial<Omit<ProxyChoice, "variable">> = {},
) =>
  chooseProxy({
    host: "a.example.test",
    flag: undefined,
    password: undefined,
    ...choice,
    variable: (name) => variables[name],
  });

const named = (variables: Variables) => choose(variables)?.hostname;

Deno.test("chooseProxy takes the variables in curl's order, empty ones for none", () => {
  const all = {
    https_proxy: "http://one:1",
    HTTPS_PROXY: "http://two:2",
    all_proxy: "http://three:3",
    ALL_PROXY: "http://four:4",
  };
  assertEquals(named(all), "one");
  assertEquals(named({ ...all, https_proxy: "" }), "two");
  assertEquals(named({ ...all, https_proxy: "", HTTPS_PROXY: "" }), "three");
  assertEquals(named({ ALL_PROXY: all.ALL_PROXY }), "four");
  assertEquals(named({}), undefined);
});

Deno.test("chooseProxy takes --proxy first, and none for none", () => {
  const variables = { https_proxy: "http://one:1", no_proxy: "*" };
  assertEquals(choose(variables, { flag: "none" }), undefined);
  assertEquals(choose(variables, { flag: "http://me@two:2" }), {
    hostname: "two",
    port: 2,
    origin: "--proxy",
    credentials: { username: "me", password: "" },
  });
});

const URLS: [string, string, number][] = [
  ["http://proxy.example:3128", "proxy.example", 3128],
  ["http://proxy.example:3128/", "proxy.example", 3128],
  ["http://proxy.example:80", "proxy.example", 80],
  ["http://proxy.example", "proxy.example", 1080],
  ["HTTP://proxy.example:8080", "proxy.example", 8080],
  ["proxy.example:3128", "proxy.example", 3128],
  ["proxy", "proxy", 1080],
  ["http://192.0.2.1:3128", "192.0.2.1", 3128],
  ["http://[2001:db8::1]:3128", "2001:db8::1", 3128],
  ["[::1]", "::1", 1080],
];

for (const [url, hostname, port] of URLS) {
  Deno.test(`chooseProxy reads ${url}`, () => {
    const expected = { hostname, port, origin: "https_proxy" };
    assertEquals(choose({ https_proxy: url }), expected);
  });
}

Deno.test("chooseProxy takes user and password from a variable", () => {
  const credentials = (url: string) =>
    choose({ HTTPS_PROXY: url })?.credentials;
  const is = (username: string, password: string) => ({ username, password });
  assertEquals(credentials("http://al:se:cret@p:1"), is("al", "se:cret"));
  assertEquals(credentials("http://a%40b:%3a%25@p:1"), is("a@b", ":%"));
  assertEquals(credentials("http://a:p@ss@p:1"), is("a", "p@ss"));
  assertEquals(credentials("http://a@p:1"), is("a", ""));
  assertEquals(credentials("a:b@p:1"), is("a", "b"));
});

Deno.test("chooseProxy takes the password of the file before the variable's", () => {
  for (const url of ["http://al@p:1", "http://al:old@p:1"]) {
    const proxy = choose({ HTTPS_PROXY: url }, { password: "new" });
    assertEquals(proxy?.credentials, { username: "al", password: "new" });
  }
  assertEquals(
    choose({}, { flag: "al@p:1", password: "new" })?.credentials?.password,
    "new",
  );
});

const SECRET = "Hunter2";

const WRONG: [string, string][] = [
  ["https://proxy:443", "an HTTPS proxy, which is not supported"],
  ["socks5h://proxy:1080", "a SOCKS proxy, which is not supported"],
  ["SOCKS4://proxy", "a SOCKS proxy, which is not supported"],
  ["ftp://proxy", "must be http://HOST:PORT"],
  ["http://", "must be http://HOST:PORT"],
  ["http://proxy:0", "must be http://HOST:PORT"],
  ["http://proxy:65536", "must be http://HOST:PORT"],
  ["http://proxy:x", "must be http://HOST:PORT"],
  ["http://proxy/path", "must be http://HOST:PORT"],
  ["http://pro xy:1", "must be http://HOST:PORT"],
  ["http://2001:db8::1", "must be http://HOST:PORT"],
  ["http://[proxy]:1", "must be http://HOST:PORT"],
  ["http://[192.0.2.1]:1", "must be http://HOST:PORT"],
  ["http://user%@proxy:1", "write a % itself as %25"],
];

for (const [url, message] of WRONG) {
  Deno.test(`chooseProxy refuses ${url}, and names where it stands`, () => {
    const flag = () => choose({}, { flag: url });
    assert(assertThrows(flag, UsageError, message).message.includes("--proxy"));
    const secret = url.replace(/(\/\/)(user%@)?/, `$1$2user:${SECRET}@`);
    for (const text of [url, secret]) {
      const variable = () => choose({ ALL_PROXY: text });
      const error = assertThrows(variable, UsageError, message);
      assert(error.message.startsWith("ALL_PROXY "), error.message);
      assert(!error.message.includes(SECRET), error.message);
    }
  });
}

Deno.test("chooseProxy takes no password from a flag", () => {
  for (const flag of [`http://al:${SECRET}@p:1`, "http://al:@p:1"]) {
    const { message } = assertThrows(
      () => choose({}, { flag }),
      UsageError,
      "--proxy-password-file",
    );
    assert(!message.includes(SECRET));
  }
});

Deno.test("chooseProxy refuses a password without a user", () => {
  assertThrows(
    () => choose({ https_proxy: "http://p:1" }, { password: SECRET }),
    UsageError,
    "needs a user",
  );
});

/** Tried with curl, but for those that say otherwise. */
const EXCEPTIONS: [string, string, boolean][] = [
  ["a.example.test", "*", true],
  ["a.example.test", "a.example.test", true],
  ["a.example.test", "example.test", true],
  ["a.example.test", ".example.test", true],
  ["example.test", ".example.test", true],
  ["a.example.test", "EXAMPLE.test", true],
  ["A.Example.Test", "example.test", true],
  ["a.example.test", "xample.test", false],
  ["a.example.test", "b.example.test", false],
  ["example.test", "a.example.test", false],
  ["a.example.test", "b, a.example.test", true],
  ["a.example.test", "b a.example.test", true],
  ["a.example.test", "b,,a.example.test", true],
  ["a.example.test", ",a.example.test", true],
  ["a.example.test", " a.example.test ", true],
  ["a.example.test", "x,*", false],
  ["a.example.test", "*.example.test", false],
  ["a.example.test", "a.example.test:9", false],
  ["a.example.test", "example.test.", true],
  ["a.example.test.", "example.test", true],
  ["a.example.test", ".", false],
  ["a.example.test", "", false],
  ["127.0.0.1", "127.0.0.1", true],
  ["127.0.0.1", "127.0.0.0/8", true],
  ["127.0.0.1", "127.0.0.1/32", true],
  ["127.0.0.1", "127.0.0.0/31", true],
  ["127.0.0.1", "10.0.0.0/8", false],
  ["127.0.0.1", "127.0.0.1/33", false],
  ["127.0.0.1", "127.0.0.1:9", false],
  ["127.0.0.1", "0.0.1", false],
  ["127.0.0.1", ".0.0.1", false],
  ["127.0.0.1", "127.0.0.0/", false],
  ["127.0.0.1", "::/0", false],
  ["::1", "::1", true],
  ["::1", "127.0.0.1", false],
  // As curl 8 does; curl 7.88 knew IPv6 by its text alone.
  ["::1", "0:0:0:0:0:0:0:1", true],
  ["fe80::7", "fe80::/10", true],
  ["fe80::7%eth0", "fe80::/10", true],
  ["2001:db8::1", "fe80::/10", false],
  ["::1", "::1/129", false],
  // In brackets, and all addresses: curl takes neither.
  ["::1", "[::1]", true],
  ["127.0.0.1", "0.0.0.0/0", true],
];

for (const [host, list, isDirect] of EXCEPTIONS) {
  Deno.test(`no_proxy='${list}' ${isDirect ? "names" : "does not name"} ${host}`, () => {
    const proxy = choose({ https_proxy: "http://p:1", no_proxy: list }, {
      host,
    });
    assertEquals(proxy === undefined, isDirect);
  });
}

Deno.test("chooseProxy takes no_proxy before NO_PROXY, an empty one for none", () => {
  const https_proxy = "http://p:1";
  const NO_PROXY = "example.test";
  assertEquals(named({ https_proxy, NO_PROXY }), undefined);
  assertEquals(named({ https_proxy, NO_PROXY, no_proxy: "other" }), "p");
  assertEquals(named({ https_proxy, NO_PROXY, no_proxy: "" }), undefined);
});

Deno.test("chooseProxy wants a proxy for a password, which some hosts may go without", () => {
  const password = "secret";
  for (const flag of [undefined, "none"]) {
    assertThrows(
      () => choose({}, { flag, password }),
      UsageError,
      "--proxy-password-file needs a proxy",
    );
  }
  const variables = { https_proxy: "http://me@p:1", no_proxy: "example.test" };
  assertEquals(choose(variables, { password }), undefined);
});

Deno.test("a proxy that cannot be used does not matter to a host that goes without", () => {
  const https_proxy = "socks5://p:1";
  assertEquals(named({ https_proxy, no_proxy: "example.test" }), undefined);
});
