// SPDX-License-Identifier: Apache-2.0
//
// An OCI registry in the memory of the test, on the loopback interface. It works correctly unless
// the test scripts its answers, and it records all requests.

#ifndef MSB_TESTS_SUPPORT_SCRIPTED_REGISTRY_H_
#define MSB_TESTS_SUPPORT_SCRIPTED_REGISTRY_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/event.h"

namespace msb::test {

struct ScriptedRequest {
  std::string method;
  std::string path;   // Without the query.
  std::string query;  // As it was sent.
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // The names are in lower case.

  // Returns the value of a header, whose name is in lower case, or "".
  std::string Header(const std::string& name) const;
};

struct ScriptedAnswer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  enum class Framing {
    kLength,   // With Content-Length.
    kChunked,  // With Transfer-Encoding.
    kClose,    // The body ends when the connection does.
  };
  Framing framing = Framing::kLength;
  // Announces a body of this length; if it is longer than body, the connection is closed after
  // body. Only with kLength. Default: the length of body.
  std::optional<std::size_t> announced = {};
  bool endless = false;  // Repeats the body without end. With kLength, announced must be set.
  // The time between two bytes of the body. Default: the body is sent at once.
  std::chrono::milliseconds drip{0};
  // The answer is sent after this event. Default: at once.
  std::shared_ptr<Event> after = nullptr;
};

class ScriptedRegistry {
 public:
  ScriptedRegistry();
  // Serves HTTPS with this certificate and its key, which are files in PEM form.
  ScriptedRegistry(const std::string& certificate, const std::string& key);
  ScriptedRegistry(const ScriptedRegistry&) = delete;
  ScriptedRegistry& operator=(const ScriptedRegistry&) = delete;
  // Sets the events that answers wait for. Clients should have closed their connections.
  ~ScriptedRegistry();

  std::string host() const;  // "127.0.0.1:PORT".
  std::string url() const;   // "http://127.0.0.1:PORT", or with https.

  // The content of the registry.
  std::string AddBlob(const std::string& repository, const std::string& bytes);  // The digest.
  std::string AddManifest(const std::string& repository, const std::string& tag,
                          const std::string& media_type, const std::string& bytes);
  std::optional<std::string> Blob(const std::string& repository, const std::string& digest) const;
  // target is a tag or a digest.
  std::optional<std::string> Manifest(const std::string& repository,
                                      const std::string& target) const;

  // Returns the answer to a request, or nullopt to answer it as a registry does.
  using Script = std::function<std::optional<ScriptedAnswer>(const ScriptedRequest& request)>;
  // Asks the script before each request with this method and path is answered; "*" stands for any
  // method, and a path that ends with '*' for all paths that begin like it. The last script that
  // was added is asked first. It is called by threads of the server.
  void On(const std::string& method, const std::string& path, Script script);
  // Gives this answer to the first requests with this method and path, as many as given.
  void Answer(const std::string& method, const std::string& path, ScriptedAnswer answer,
              int times = 1 << 30);

  // Demands this user and password from now on.
  void RequireBasic(const std::string& username, const std::string& password);
  // Demands tokens, which url() + "/token" grants, from now on.
  struct Tokens {
    // Who gets tokens. Default: everybody.
    std::string username = {};
    std::string password = {};
    std::string refresh_token = {};
    std::string realm = {};          // Default: url() + "/token".
    std::string expires_in = "300";  // JSON. Empty: not sent.
  };
  void RequireTokens(Tokens tokens);
  // Refuses the tokens that were granted so far.
  void RevokeTokens();

  std::vector<ScriptedRequest> Requests() const;
  // Returns the requests with this method and path, as in On.
  std::vector<ScriptedRequest> Requests(const std::string& method, const std::string& path) const;
  // Waits until the registry has got this many requests with this method and path. Returns false if
  // that takes longer than a minute.
  bool AwaitRequests(const std::string& method, const std::string& path, std::size_t count) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SCRIPTED_REGISTRY_H_
