// go-nsq plays the scenarios of ../README.md. Arguments: lookupd's HTTP address, the topic, the layers if there are any.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"
)

const (
	channel         = "conformance"
	msgTimeout      = time.Second
	heartbeat       = time.Second
	maxInFlight     = 10
	delay           = 500 * time.Millisecond
	touches         = 3
	touchEvery      = 400 * time.Millisecond
	finishAfterStop = 300 * time.Millisecond
)

var start = time.Now()

// emit tells the test what happens, one JSON line each; at_ms is a monotonic clock of this process.
func emit(what, body string, attempts uint16) {
	line, _ := json.Marshal(map[string]any{
		"what": what, "body": body, "attempts": attempts, "at_ms": time.Since(start).Milliseconds(),
	})
	os.Stdout.Write(append(line, '\n'))
}

// scenario is the consumer's side; every delivery is handled in a goroutine of its own.
type scenario struct {
	finished chan string
	mutex    sync.Mutex
	timedOut *nsq.Message
	stop     func()
}

func (s *scenario) HandleMessage(message *nsq.Message) error {
	message.DisableAutoResponse()
	go s.handle(message)
	return nil
}

func (s *scenario) handle(message *nsq.Message) {
	body, first := string(message.Body), message.Attempts == 1
	emit("delivered", body, message.Attempts)
	switch {
	case body == "requeue" && first:
		emit("requeuing", body, message.Attempts)
		message.RequeueWithoutBackoff(delay)
		return
	case body == "timeout" && first:
		s.mutex.Lock()
		s.timedOut = message
		s.mutex.Unlock()
		return
	case body == "touch":
		for i := 0; i < touches; i++ {
			time.Sleep(touchEvery)
			message.Touch()
		}
		time.Sleep(touchEvery)
	case body == "stopping":
		s.stop() // CLS; the node must still take the FIN of what is in flight
		time.Sleep(finishAfterStop)
	}
	message.Finish()
	if body == "timeout" {
		s.mutex.Lock()
		s.timedOut.Finish() // too late: E_FIN_FAILED, and the connection must live on
		s.mutex.Unlock()
	}
	emit("finished", body, message.Attempts)
	s.finished <- body
}

// step publishes bodies and waits until every one of them is finished.
func (s *scenario) step(publish func(bodies []string) error, bodies ...string) {
	for _, body := range bodies {
		emit("publishing", body, 0)
	}
	check(publish(bodies))
	for range bodies {
		<-s.finished
	}
}

func main() {
	lookupd, topic := os.Args[1], os.Args[2]
	config := nsq.NewConfig()
	config.MsgTimeout = msgTimeout
	config.HeartbeatInterval = heartbeat
	config.MaxInFlight = maxInFlight
	config.LookupdPollInterval = 200 * time.Millisecond
	config.AuthSecret = os.Getenv("AUTH_SECRET")
	layered := len(os.Args) > 3
	if layered {
		setLayers(config, os.Args[3])
	}
	logger := log.New(os.Stderr, "", log.Lmicroseconds)

	producer, err := nsq.NewProducer(findNode(lookupd, topic), config)
	check(err)
	producer.SetLogger(logger, nsq.LogLevelInfo)
	consumer, err := nsq.NewConsumer(topic, channel, config)
	check(err)
	consumer.SetLogger(logger, nsq.LogLevelInfo)
	s := &scenario{finished: make(chan string), stop: consumer.Stop}
	consumer.AddHandler(s)
	check(consumer.ConnectToNSQLookupd(lookupd))

	publishSingly := func(bodies []string) error {
		for _, body := range bodies {
			if err := producer.Publish(topic, []byte(body)); err != nil {
				return err
			}
		}
		return nil
	}
	publishMany := func(bodies []string) error {
		var batch [][]byte
		for _, body := range bodies {
			batch = append(batch, []byte(body))
		}
		return producer.MultiPublish(topic, batch)
	}
	publishDeferred := func(bodies []string) error {
		return producer.DeferredPublish(topic, delay, []byte(bodies[0]))
	}

	s.step(publishSingly, numbered("single", 10)...)
	s.step(publishMany, numbered("batch", 25)...)
	if layered {
		padding := strings.Repeat("x", 50000)
		s.step(publishMany, "large-0"+padding, "large-1"+padding, "large-2"+padding)
		emit("connected", "", 0)
		bufio.NewReader(os.Stdin).ReadString('\n')
		consumer.Stop()
		<-consumer.StopChan
		producer.Stop()
		return
	}
	s.step(publishDeferred, "deferred")
	for _, body := range []string{"requeue", "timeout", "touch"} {
		s.step(publishSingly, body)
	}

	emit("restart", "", 0)
	bufio.NewReader(os.Stdin).ReadString('\n')
	for producer.Ping() != nil {
		time.Sleep(20 * time.Millisecond)
	}
	s.step(publishSingly, numbered("after", 5)...)
	s.step(publishSingly, "stopping")
	<-consumer.StopChan
	producer.Stop()
}

// setLayers asks for compression, and for TLS if there is a root to trust.
func setLayers(config *nsq.Config, words string) {
	var layers struct{ Compression, Root, Cert, Key string }
	check(json.Unmarshal([]byte(words), &layers))
	config.Snappy = layers.Compression == "snappy"
	config.Deflate = layers.Compression == "deflate"
	if layers.Root == "" {
		return
	}
	root, err := os.ReadFile(layers.Root)
	check(err)
	pair, err := tls.LoadX509KeyPair(layers.Cert, layers.Key)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	config.TlsV1 = true
	config.TlsConfig = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
}

func numbered(name string, count int) (bodies []string) {
	for i := 0; i < count; i++ {
		bodies = append(bodies, name+"-"+strconv.Itoa(i))
	}
	return bodies
}

// findNode asks lookupd which node has the topic; host:port of its TCP side.
func findNode(lookupd, topic string) string {
	answer, err := http.Get("http://" + lookupd + "/lookup?topic=" + topic)
	check(err)
	defer answer.Body.Close()
	var found struct {
		Producers []struct {
			BroadcastAddress string `json:"broadcast_address"`
			TCPPort          int    `json:"tcp_port"`
		} `json:"producers"`
	}
	check(json.NewDecoder(answer.Body).Decode(&found))
	if len(found.Producers) == 0 {
		check(errors.New("lookupd knows no node of " + topic))
	}
	return net.JoinHostPort(found.Producers[0].BroadcastAddress, strconv.Itoa(found.Producers[0].TCPPort))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
