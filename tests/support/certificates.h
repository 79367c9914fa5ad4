// SPDX-License-Identifier: Apache-2.0
//
// Makes keys and certificates with openssl(1).

#ifndef MSB_TESTS_SUPPORT_CERTIFICATES_H_
#define MSB_TESTS_SUPPORT_CERTIFICATES_H_

#include <filesystem>
#include <string>

namespace msb::test {

// A PEM certificate and its private key.
struct Certificate {
  std::filesystem::path certificate;
  std::filesystem::path key;
};

// Makes the certificate of an authority, with an elliptic curve key. Files begin with dir/name.
Certificate MakeAuthority(const std::filesystem::path& dir, const std::string& name = "ca");
// Makes a certificate for 127.0.0.1 and localhost that the authority signs.
Certificate MakeServerCertificate(const std::filesystem::path& dir, const Certificate& authority);
// Makes a self-signed certificate with an RSA key, for signing tokens.
Certificate MakeSigningCertificate(const std::filesystem::path& dir);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_CERTIFICATES_H_
