// SPDX-License-Identifier: Apache-2.0

#include "src/registry/credential_helper.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

#include "src/base/command.h"
#include "src/base/fields.h"
#include "src/base/json.h"
#include "src/base/spawn.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

constexpr std::size_t kMaxJson = 64;  // Values in an answer, which has four.

std::filesystem::path FindHelperProgram(const CredentialHelper& helper) {
  const std::string program = "docker-credential-" + helper.name;
  if (helper.name.empty() || !base::IsPlainFileName(program)) {
    base::Throw(ErrorKind::kInvalidConfig,
                "{} names the credential helper '{}', which is not a plain file name; correct "
                "credHelpers or credsStore in it",
                helper.config, base::Quoted(helper.name));
  }
  std::filesystem::path path = base::FindProgram(program);
  if (path.empty()) {
    base::Throw(ErrorKind::kInvalidConfig,
                "the credential helper '{}', which {} names, is not on the PATH; install it, or "
                "remove it from credHelpers or credsStore in that file",
                base::Quoted(program), helper.config);
  }
  return path;
}

// Runs the helper, whose time begins now.
base::CommandResult RunHelper(const Context& ctx, const CredentialHelper& helper,
                              const base::Command& command) {
  try {
    return base::RunCommand(ctx.WithTimeout(helper.time), command);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled || ctx.Done()) throw;
  }
  base::Throw(ErrorKind::kIO,
              "the credential helper {} has not answered within {} s; run 'echo HOST | {} get' to "
              "find the reason",
              command.program.native(),
              std::chrono::ceil<std::chrono::seconds>(helper.time).count(),
              command.program.native());
}

// Parses the answer of the helper. Throws std::invalid_argument without quoting from it.
Credentials ParseAnswer(const std::string& output) {
  base::Json root;
  try {
    root = base::ParseJson(output, kMaxJson);
  } catch (const std::invalid_argument&) {
    throw std::invalid_argument("it is not JSON");
  }
  const base::Fields fields(root, "", {"Username", "Secret"}, base::Fields::Others::kIgnore);
  const std::string username = fields.AnyText("Username");
  std::string secret = fields.AnyText("Secret");
  // This name means that the secret is a refresh token.
  if (username == "<token>") return {.identity_token = std::move(secret)};
  return {.username = username, .password = std::move(secret)};
}

// Returns the helper's error message, which the protocol puts on standard output. Leaves out text
// that looks like credentials.
std::string Reason(const base::CommandResult& result) {
  const std::string& text = result.output.empty() ? result.error : result.output;
  if (text.empty() || text.find('{') != std::string::npos) return {};
  return fmt::format(": '{}'", base::Quoted(text.substr(0, text.find_last_not_of(" \r\n") + 1)));
}

}  // namespace

std::optional<Credentials> CredentialHelper::Get(const Context& ctx,
                                                 const std::string& registry) const {
  const std::filesystem::path program = FindHelperProgram(*this);
  const base::CommandResult result =
      RunHelper(ctx, *this, {.program = program, .arguments = {"get"}, .input = registry + "\n"});
  if (result.exit_status != 0) {
    if (result.output.find("credentials not found") != std::string::npos) return std::nullopt;
    base::Throw(ErrorKind::kIO,
                "the credential helper {} failed for registry '{}' with exit status {}{}; run "
                "'docker login {}', or set the username and the password",
                program.native(), registry, result.exit_status, Reason(result), registry);
  }
  try {
    if (result.output.size() >= base::kMaxCommandOutput) {
      throw std::invalid_argument(
          fmt::format("it is longer than {} bytes", base::kMaxCommandOutput - 1));
    }
    return ParseAnswer(result.output);
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kIO,
                "the answer of the credential helper {} for registry '{}' is malformed: {}; update "
                "or replace the helper",
                program.native(), registry, e.what());
  }
}

}  // namespace msb::registry
