// SPDX-License-Identifier: Apache-2.0
//
// One run of the program: the options that all commands share, the client, and the output.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_SESSION_H_
#define MSB_TOOLS_MSB_SNAPSHOT_SESSION_H_

#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "msb/msb.h"
#include "tools/msb-snapshot/progress_bar.h"
#include "tools/msb-snapshot/terminal.h"

namespace msb::program {

using Json = nlohmann::ordered_json;

// The options that every command has.
struct CommonOptions {
  std::string home = {};
  std::string backend = {};
  bool json = false;
  bool quiet = false;
};

// What a command reports: the document for --json, and the text for people, whose lines end in a
// line feed.
struct Report {
  Json document;
  std::string text;
};

class Session {
 public:
  CommonOptions options = {};
  // Settings of the client that only some commands have.
  QemuConfig qemu = {};
  std::optional<DiskFormat> upper_format = {};

  // Receives the warnings of the client. Default: prints them.
  // A warning that has been passed on is not repeated.
  LogFunction log = [this](std::string_view message) { Tell(Color::kYellow, "warning", message); };

  // Returns the configuration of the client: the environment, and then the options.
  Config ClientConfig() const;
  // Returns the client, which is created on first use. Its warnings go to standard error.
  const Client& client();
  // Returns a context that the signals cancel and that shows the progress.
  Context context();

  // Returns "local", "qemu" or "microsandbox".
  std::string BackendName();

  // Prints the document with --json. Otherwise prints the text unless --quiet is given.
  void Print(const Report& report);
  // Prints "KIND: MESSAGE" to standard error, after removing the progress bar.
  void Tell(Color color, std::string_view kind, std::string_view message);

  // Runs work for each name, reports each, and continues with the next name if one fails. The
  // document is {"results": [...]}, in which a failed name has an "error". Returns the exit code.
  int ForEach(const std::vector<std::string>& names,
              const std::function<Report(const std::string& name)>& work);

  // Prints an error that ends the command, and returns the exit code for it.
  int Fail(const std::exception& error);
  // Does the same for an error that is a part of the document with --json.
  int ExplainFailure(const std::exception& error);

 private:
  void Explain(const std::exception& error, std::string_view when_cancelled);

  // Returns true for the first warning with this text.
  bool IsNew(std::string_view warning);

  std::mutex mutex_;                // Guards warnings_.
  std::set<std::string> warnings_;  // Those that were passed to log.
  std::optional<Client> client_;
  ProgressBar bar_;
};

// Returns {"kind", "message"} of an error, and "os_error" for kIO.
Json ErrorDocument(const std::exception& error);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_SESSION_H_
