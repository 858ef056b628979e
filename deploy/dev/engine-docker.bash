# shellcheck shell=bash
# Brokers as containers of the public image. Sourced by deploy/dev/kafka, whose names it uses.
# Written from the documentation of the image, and not yet tried against a daemon.
#
# The public image takes every broker property as an environment variable KAFKA_..., and formats its storage itself.

container() {
  echo "residua-dev-${CLUSTER_ID//[^A-Za-z0-9]/x}-$1"
}

network() {
  container net
}

docker_answers() {
  timeout 10 docker info >/dev/null 2>&1
}

image() {
  echo "apache/kafka:$(kafka_version)"
}

have_image() {
  docker image inspect "$(image)" >/dev/null 2>&1 || docker pull "$(image)" >&2
}

controller_docker() {
  echo "$(container "$1"):9093"
}

# Brokers reach each other by container name, clients on the published ports of loopback.
listeners_docker() {
  cat <<LISTENERS
listeners=CLIENT://:9092,CONTROLLER://:9093,PLAINTEXT://:9094,SASL_PLAINTEXT://:9095,PROXIED://:9096
advertised.listeners=CLIENT://127.0.0.1:$(<"$DIR/broker-$1/port"),PROXIED://127.0.0.1:$(<"$DIR/broker-$1/proxy-port"),PLAINTEXT://$(container "$1"):9094,SASL_PLAINTEXT://127.0.0.1:$(<"$DIR/broker-$1/login-port")
listener.security.protocol.map=CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=/tmp/kafka-data
LISTENERS
}

create_containers() {
  local n name value
  docker network create "$(network)" >/dev/null
  for n in $(seq "$BROKERS"); do
    while IFS='=' read -r name value; do
      name=${name^^}
      name=${name//_/__}
      echo "KAFKA_${name//./_}=$value"
    done <"$DIR/broker-$n/server.properties" >"$DIR/broker-$n/environment"
    echo "KAFKA_HEAP_OPTS=-Xmx384m" >>"$DIR/broker-$n/environment"
    echo "CLUSTER_ID=$CLUSTER_ID" >>"$DIR/broker-$n/environment"
    docker create --name "$(container "$n")" --hostname "$(container "$n")" --network "$(network)" \
      --publish "127.0.0.1:$(<"$DIR/broker-$n/port"):9092" --publish "127.0.0.1:$(<"$DIR/broker-$n/login-port"):9095" \
      --publish "127.0.0.1:$(<"$DIR/broker-$n/proxied-port"):9096" \
      --env-file "$DIR/broker-$n/environment" "$(image)" >/dev/null
  done
}

launch_docker() {
  docker start "$(container "$1")" >>"$DIR/broker-$1/log" 2>&1 || true # what went wrong is said when it does not answer
}

alive_docker() {
  [[ $(docker inspect --format '{{.State.Running}}' "$(container "$1")" 2>/dev/null) == true ]]
}

signal_docker() {
  docker kill --signal "$1" "$(container "$2")" >/dev/null 2>&1 || true
}

remove_containers() {
  local n
  for n in $(seq "$BROKERS"); do docker rm --force --volumes "$(container "$n")" >/dev/null 2>&1 || true; done
  docker network rm "$(network)" >/dev/null 2>&1 || true
}
