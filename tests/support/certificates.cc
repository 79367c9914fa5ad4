// SPDX-License-Identifier: Apache-2.0

#include "tests/support/certificates.h"

#include <fmt/format.h>

#include <stdexcept>
#include <string_view>

#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::string_view kCurve = "ec -pkeyopt ec_paramgen_curve:prime256v1";

Certificate Make(const std::filesystem::path& dir, const std::string& name, std::string_view key,
                 const std::string& options) {
  Certificate made{dir / (name + ".pem"), dir / (name + ".key")};
  const CommandResult run =
      RunCommand(fmt::format("openssl req -x509 -newkey {} -nodes -days 2 -subj '/CN=msb test {}' "
                             "-keyout '{}' -out '{}' {}",
                             key, name, made.key.native(), made.certificate.native(), options));
  if (run.status != 0) throw std::runtime_error("openssl: " + run.output);
  return made;
}

}  // namespace

Certificate MakeAuthority(const std::filesystem::path& dir, const std::string& name) {
  return Make(dir, name, kCurve, "");
}

Certificate MakeServerCertificate(const std::filesystem::path& dir, const Certificate& authority) {
  return Make(dir, "server", kCurve,
              fmt::format("-CA '{}' -CAkey '{}' "
                          "-addext subjectAltName=IP:127.0.0.1,DNS:localhost "
                          "-addext basicConstraints=critical,CA:false",
                          authority.certificate.native(), authority.key.native()));
}

Certificate MakeSigningCertificate(const std::filesystem::path& dir) {
  return Make(dir, "token", "rsa:2048", "");
}

}  // namespace msb::test
