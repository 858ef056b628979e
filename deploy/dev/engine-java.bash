# shellcheck shell=bash
# Brokers as Java processes, from jars that Maven downloads. Sourced by deploy/dev/kafka, whose names it uses.

need_java() {
  local hint='run deploy/dev/setup, or start a Docker daemon' version
  command -v java >/dev/null || impossible "neither Docker nor Java is here: $hint"
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  ((${version:-0} >= 17)) || impossible "Java ${version:-of unknown version} is too old, Kafka needs 17: $hint"
}

# Jars come once per version into JARS, complete or not at all.
need_jars() {
  JAR_DIR=$JARS/$(kafka_version)
  [[ ! -d $JAR_DIR ]] || return 0
  command -v mvn >/dev/null || impossible "Java is here but Maven is not: run deploy/dev/setup, or start a Docker daemon"
  mkdir -p "$JARS"
  (
    flock -w "$LOCK_SECONDS_MAX" 8 || fail "waited $LOCK_SECONDS_MAX s for another download of Kafka"
    [[ ! -d $JAR_DIR ]] || exit 0
    say "downloading Kafka $(kafka_version) with Maven, once"
    rm -rf "$JAR_DIR.part"
    # The target folder of the plugin's own bookkeeping would be deploy/dev/target: a copy of the pom keeps it out of there.
    mkdir -p "$JAR_DIR.part/pom"
    cp "$HERE/pom.xml" "$JAR_DIR.part/pom/"
    mvn -q -B -f "$JAR_DIR.part/pom/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$JAR_DIR.part/lib" >"$JAR_DIR.part/log" 2>&1 ||
      impossible "Maven cannot download Kafka: $(grep -m 1 ERROR "$JAR_DIR.part/log" | cut -c 1-300)"
    mv "$JAR_DIR.part/lib" "$JAR_DIR"
    rm -rf "$JAR_DIR.part"
  ) 8>"$JARS/lock"
}

controller_java() {
  echo "127.0.0.1:$(<"$DIR/broker-$1/controller-port")"
}

listeners_java() {
  local secure='' secure_map=''
  if [[ -n $SECURE ]]; then
    secure=,TLS://127.0.0.1:$(<"$DIR/broker-$1/tls-port"),LOGIN_TLS://127.0.0.1:$(<"$DIR/broker-$1/login-tls-port")
    secure_map=,TLS:SSL,LOGIN_TLS:SASL_SSL
  fi
  cat <<LISTENERS
listeners=PLAINTEXT://127.0.0.1:$(<"$DIR/broker-$1/port"),PROXIED://127.0.0.1:$(<"$DIR/broker-$1/proxied-port"),SASL_PLAINTEXT://127.0.0.1:$(<"$DIR/broker-$1/login-port"),CONTROLLER://$(controller_java "$1")$secure
advertised.listeners=PLAINTEXT://127.0.0.1:$(<"$DIR/broker-$1/port"),PROXIED://127.0.0.1:$(<"$DIR/broker-$1/proxy-port"),SASL_PLAINTEXT://127.0.0.1:$(<"$DIR/broker-$1/login-port")$secure
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT$secure_map
inter.broker.listener.name=PLAINTEXT
log.dirs=$DIR/broker-$1/data
LISTENERS
}

format_storage() {
  local n log
  local -a jobs=() scram=()
  [[ -z $SECURE ]] || scram=(--add-scram 'SCRAM-SHA-512=[name=residua,password=residua-secret]')
  for n in $(seq "$BROKERS"); do
    CLASSPATH="$JAR_DIR/*" java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
      -t "$CLUSTER_ID" -c "$DIR/broker-$n/server.properties" "${scram[@]}" >"$DIR/broker-$n/log" 2>&1 9>&- &
    jobs+=("$!")
  done
  for n in $(seq "$BROKERS"); do
    log=$DIR/broker-$n/log
    wait "${jobs[n - 1]}" || { tail -n 20 "$log" >&2; fail "cannot format the storage of broker $n"; }
  done
}

launch_java() {
  local n=$1 keys
  [[ -n ${JAR_DIR:-} ]] || need_jars
  keys=$(sed -n 's/^.*jwks.endpoint.url=//p' "$DIR/broker-$n/server.properties")
  CLASSPATH="$JAR_DIR/*" daemon "$DIR/broker-$n/pid" "$DIR/broker-$n/log" \
    java -Xmx384m -XX:+UseSerialGC "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=$keys" -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS kafka.Kafka "$DIR/broker-$n/server.properties"
}

alive_java() {
  alive "$(cat "$DIR/broker-$1/pid" 2>/dev/null || true)"
}

signal_java() {
  local id
  id=$(cat "$DIR/broker-$2/pid" 2>/dev/null || true)
  if alive "$id"; then kill -"$1" "${id%% *}" 2>/dev/null || true; fi
}
