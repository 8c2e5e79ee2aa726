// SPDX-License-Identifier: Apache-2.0
// gloox with its ConnectionBOSH, one user in a process. It speaks to the test as agent.mjs does. gloox cannot attach to
// a session, so there is neither "attach" nor "session".

#include <gloox/client.h>
#include <gloox/connectionbosh.h>
#include <gloox/connectionlistener.h>
#include <gloox/connectiontcpclient.h>
#include <gloox/loghandler.h>
#include <gloox/message.h>
#include <gloox/messagehandler.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using namespace gloox;

namespace {

class Agent : public ConnectionListener, public MessageHandler, public LogHandler {
  public:
    bool active() const
    {
        return m_client && !m_over;
    }

    void command(const std::vector<std::string> &line)
    {
        m_user = line[0];
        if (line[1] == "login" && line.size() == 5) {
            login(line[2], JID(line[3]), line[4]);
        } else if (line[1] == "say" && line.size() == 4) {
            m_client->send(Message(Message::Chat, JID(line[2]), line[3]));
        } else if (line[1] == "logout") {
            m_client->disconnect();
        } else {
            report("error", "no command " + line[1]);
        }
    }

    void receive()
    {
        m_client->recv(
            10000); // what it returns is about one of its connections, not about the session
    }

  private:
    void login(const std::string &url, const JID &jid, const std::string &password)
    {
        // http://HOST:PORT/...
        const std::string authority = url.substr(7, url.find('/', 7) - 7);
        const std::string::size_type colon = authority.find(':');
        const std::string host = authority.substr(0, colon);
        const int port = std::atoi(authority.c_str() + colon + 1);
        m_client.reset(new Client(jid, password));
        m_client->setTls(TLSDisabled);
        m_client->setCompression(false);
        m_client->registerConnectionListener(this);
        m_client->registerMessageHandler(this);
        if (std::getenv("BOSH_GLOOX_LOG")) {
            m_client->logInstance().registerLogHandler(LogLevelDebug, LogAreaAll, this);
        }
        ConnectionBOSH *bosh = new ConnectionBOSH(
            m_client.get(), new ConnectionTCPClient(m_client->logInstance(), "127.0.0.1", port),
            m_client->logInstance(), host, jid.server(), 5222);
        bosh->setPath("/http-bind");
        bosh->setMode(ConnectionBOSH::ModePersistentHTTP);
        m_client->setConnectionImpl(bosh);
        if (!m_client->connect(false)) {
            report("error", "connect() failed");
        }
    }

    void report(const std::string &event, const std::string &a = "", const std::string &b = "")
    {
        std::cout << m_user << '\t' << event << '\t' << a << '\t' << b << std::endl;
    }

    void onConnect() override
    {
        report("online", m_client->jid().full());
    }

    void onDisconnect(ConnectionError error) override
    {
        m_over = true;
        if (error != ConnUserDisconnected && error != ConnStreamClosed) {
            report("error", "connection error " + std::to_string(error));
        }
        report("offline");
    }

    bool onTLSConnect(const CertInfo &) override
    {
        return false;
    }

    void handleMessage(const Message &message, MessageSession *) override
    {
        if (!message.body().empty()) {
            report("message", message.from().full(), message.body());
        }
    }

    void handleLog(LogLevel, LogArea, const std::string &text) override
    {
        std::cerr << text << std::endl;
    }

    std::unique_ptr<Client> m_client;
    std::string m_user;
    bool m_over = false;
};

std::vector<std::string> fields(const std::string &line)
{
    std::vector<std::string> result;
    std::istringstream in(line);
    for (std::string field; std::getline(in, field, '\t');) {
        result.push_back(field);
    }
    return result;
}

} // namespace

int main()
{
    Agent agent;
    std::string input;
    for (;;) {
        struct pollfd fd = {STDIN_FILENO, POLLIN, 0};
        if (poll(&fd, 1, agent.active() ? 0 : -1) > 0) {
            char buffer[65536];
            const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
            if (n <= 0) {
                return 0;
            }
            input.append(buffer, static_cast<size_t>(n));
            for (std::string::size_type end; (end = input.find('\n')) != std::string::npos;) {
                agent.command(fields(input.substr(0, end)));
                input.erase(0, end + 1);
            }
        }
        if (agent.active()) {
            agent.receive();
        }
    }
}
